package e2e_test

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/teams"
	"steno/tests/sim"
	"steno/tests/world"
)

// audited lets the sequencer run until trail and log agree, and fails if they do not.
func audited(t *testing.T, w *world.World, a *world.Archive) world.CustodyReport {
	t.Helper()
	r, err := w.CheckCustody(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if !r.OK() {
		t.Fatalf("%+v", r)
	}
	return r
}

func TestTheTrailOfTheBuiltAppIsInItsLogAndOpensslVerifiesTheCheckpoint(t *testing.T) {
	w, _ := start(t, world.Config{Sim: sim.Config{Seed: 5, People: 12, Messages: 50}})
	runTimer(t, w, "groupsync")
	a, err := w.Archive()
	if err != nil {
		t.Fatal(err)
	}
	read := func(n int) {
		for i := range n {
			if _, err := a.Trail.Append(t.Context(), custody.Event{
				Tenant: teams.TenantID(w.Tenant.ID()), Action: custody.Read, System: "test", Item: fmt.Sprintf("unit-%d", i),
			}); err != nil {
				t.Fatal(err)
			}
		}
	}
	read(20)
	first := audited(t, w, a)
	tiles, err := w.Log()
	if err != nil {
		t.Fatal(err)
	}
	older := signedCheckpoint(t, w, tiles)
	read(300) // past the edge of a tile
	second := audited(t, w, a)
	for end := time.Now().Add(30 * time.Second); second.Signed < first.Leaves+300; second = audited(t, w, a) {
		if time.Now().After(end) { // a signature is due once a second here
			t.Fatalf("%d leaves, and the signature still covers %d", second.Leaves, second.Signed)
		}
	}
	newer := signedCheckpoint(t, w, tiles)
	proof, err := custody.NewTree(tiles, newer).ProveConsistency(t.Context(), older.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := custody.CheckConsistency(older, newer, proof); err != nil || newer.Size <= older.Size {
		t.Fatalf("from %d to %d: %v", older.Size, newer.Size, err)
	}
	removeAnEvent(t, w)
	r, err := w.CheckCustody(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	if r.Orphans != 1 || r.OK() {
		t.Errorf("an event was removed from the table: %+v", r)
	}
}

// signedCheckpoint verifies the newest signed checkpoint with nothing but openssl, and
// returns it.
func signedCheckpoint(t *testing.T, w *world.World, tiles custody.Tiles) custody.Checkpoint {
	t.Helper()
	signer, err := w.Signer()
	if err != nil {
		t.Fatal(err)
	}
	_, key, err := signer.SigningKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h, _, err := custody.ReadHead(t.Context(), tiles)
	if err != nil || h.Signed == nil {
		t.Fatalf("head %+v: %v", h, err)
	}
	dir := t.TempDir()
	for name, body := range map[string][]byte{
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}), "checkpoint": []byte(h.Signed.Text), "checkpoint.sig": h.Signed.Signature,
		"forged": []byte(h.Signed.Text + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(file string) error {
		cmd := exec.CommandContext(t.Context(), "openssl", "dgst", "-sha256", "-verify", "key.pem", "-signature", "checkpoint.sig", file)
		cmd.Dir = dir
		return cmd.Run()
	}
	if err := verify("checkpoint"); err != nil {
		t.Fatalf("openssl refuses the checkpoint: %v", err)
	}
	if err := verify("forged"); err == nil {
		t.Fatal("openssl takes another text under the same signature")
	}
	c, err := custody.VerifyCheckpoint(key, custody.Origin(teams.TenantID(w.Tenant.ID())), []byte(h.Signed.Text), h.Signed.Signature)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// removeAnEvent deletes one row of the trail, as somebody with the right to could.
func removeAnEvent(t *testing.T, w *world.World) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tables, err := aztables.NewServiceClient(w.Storage.TableURL, w.Credential, &aztables.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: w.CA.Client()}})
	if err != nil {
		t.Fatal(err)
	}
	trail := tables.NewClient(azure.TableCustody)
	page, err := trail.NewListEntitiesPager(nil).NextPage(ctx)
	if err != nil || len(page.Entities) == 0 {
		t.Fatalf("%d rows: %v", len(page.Entities), err)
	}
	var row aztables.Entity
	if err := json.Unmarshal(page.Entities[0], &row); err != nil {
		t.Fatal(err)
	}
	if _, err := trail.DeleteEntity(ctx, row.PartitionKey, row.RowKey, nil); err != nil {
		t.Fatal(err)
	}
}
