// Command restorekeys restores rows of the key table from the escrow records in write-once
// storage, for the day on which the table is lost. Those who hold the recovery key run it, on
// a machine of their own, with an identity that may read evidence, insert into the key table
// and read the vault's public key. It destroys and overwrites nothing, and may be repeated.
//
//	go run ./infra/restorekeys -tenant ID -recovery-key recovery.pem \
//	    -blob-url https://ACCOUNT.blob.core.windows.net -table-url https://ACCOUNT.table.core.windows.net \
//	    -vault-url https://NAME.vault.azure.net
//
// Exit status: 0 if every record was restored or its row was there, 1 if one was refused or
// could not be read, 2 if nothing was tried.
package main

import (
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/evidence"
	"steno/shared/teams"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], nil, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// access is how the services are reached; nil means as whoever is signed in.
type access struct {
	credential azcore.TokenCredential
	options    azcore.ClientOptions
	private    bool // the vault lies on an address of its own
}

func run(ctx context.Context, args []string, a *access, out, complain io.Writer) int {
	recovery, unit, err := prepare(args, a, complain)
	if errors.Is(err, flag.ErrHelp) {
		return 2
	}
	if err != nil {
		fmt.Fprintln(complain, "restorekeys:", err)
		return 2
	}
	done, err := recovery.Run(ctx, unit)
	fmt.Fprintf(out, "%d escrow records read, %d keys restored, %d were there\n", done.Records, done.Restored, done.There)
	if err != nil {
		fmt.Fprintln(complain, "restorekeys:", err)
		return 1
	}
	return 0
}

func prepare(args []string, a *access, complain io.Writer) (r evidence.Recovery, unit string, err error) {
	f := flag.NewFlagSet("restorekeys", flag.ContinueOnError)
	f.SetOutput(complain)
	tenant := f.String("tenant", "", "Entra tenant id")
	keyFile := f.String("recovery-key", "", "PEM file of the recovery private key (PKCS #8, not encrypted)")
	blobURL, tableURL, vaultURL := f.String("blob-url", "", "storage account of evidence"), f.String("table-url", "", "storage account of the key table"), f.String("vault-url", "", "key vault of the wrapping key")
	box, vaultKey := f.String("container", "evidence", "container of evidence"), f.String("vault-key", "steno-wrap", "name of the wrapping key")
	f.StringVar(&unit, "unit", "", "restore the keys of this unit alone")
	if err := f.Parse(args); err != nil {
		return r, "", err
	}
	if *keyFile == "" || *blobURL == "" || *tableURL == "" || *vaultURL == "" {
		return r, "", errors.New("-tenant, -recovery-key, -blob-url, -table-url and -vault-url are required")
	}
	if r.Tenant, err = teams.ParseTenantID(*tenant); err != nil {
		return r, "", err
	}
	key, err := privateKey(*keyFile)
	if err != nil {
		return r, "", err
	}
	if r.Open, err = evidence.OpenWith(key); err != nil {
		return r, "", err
	}
	if a == nil {
		cred, err := azidentity.NewDefaultAzureCredential(nil)
		if err != nil {
			return r, "", fmt.Errorf("credential: %w", err)
		}
		a = &access{credential: cred, options: azure.ClientOptions()}
	}
	blobs, err := container.NewClient(*blobURL+"/"+*box, a.credential, &container.ClientOptions{ClientOptions: a.options})
	if err != nil {
		return r, "", fmt.Errorf("blobs: %w", err)
	}
	tables, err := aztables.NewServiceClient(*tableURL, a.credential, &aztables.ClientOptions{ClientOptions: a.options})
	if err != nil {
		return r, "", fmt.Errorf("tables: %w", err)
	}
	keys, err := azkeys.NewClient(*vaultURL, a.credential, &azkeys.ClientOptions{ClientOptions: a.options, DisableChallengeResourceVerification: a.private})
	if err != nil {
		return r, "", fmt.Errorf("key vault: %w", err)
	}
	r.Objects, r.Keys, r.Vault = azure.NewBlobs(blobs), azure.NewKeys(tables), azure.NewVault(keys, *vaultKey)
	return r, unit, nil
}

// privateKey reads the recovery private key.
func privateKey(file string) (*rsa.PrivateKey, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, fmt.Errorf("recovery key: %s holds no PRIVATE KEY block", file)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("recovery key: %s cannot be read", file)
	}
	key, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("recovery key: %s holds no RSA key", file)
	}
	return key, nil
}
