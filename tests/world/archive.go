package world

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// Archive reads a world's archive from outside the app, with the app's own identity.
type Archive struct {
	Catalog  *azure.Catalog
	Evidence *evidence.Store
	Roster   *azure.Roster
	Trail    custody.Log
	Jobs     *azure.Lookbacks
	Failures *azure.Failures
	tenant   teams.TenantID
	blobs    *container.Client
	tails    *container.Client
	objects  *azure.Blobs
	keys     *azure.Keys
	vault    *azure.Vault
}

// Archive opens the archive.
func (w *World) Archive() (*Archive, error) {
	opts := azcore.ClientOptions{Transport: w.CA.Client()}
	tables, err := aztables.NewServiceClient(w.Storage.TableURL, w.Credential, &aztables.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, err
	}
	blobs, err := container.NewClient(w.Storage.BlobURL+"/"+Container, w.Credential, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, err
	}
	tails, err := container.NewClient(w.Storage.BlobURL+"/"+Tails, w.Credential, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return nil, err
	}
	keys, err := azkeys.NewClient(w.VaultURL, w.Credential, &azkeys.ClientOptions{ClientOptions: opts, DisableChallengeResourceVerification: true})
	if err != nil {
		return nil, err
	}
	vault, err := url.Parse(w.VaultURL)
	if err != nil {
		return nil, err
	}
	a := &Archive{
		tenant: teams.TenantID(w.Tenant.ID()), blobs: blobs, tails: tails, objects: azure.NewBlobs(blobs), keys: azure.NewKeys(tables), vault: azure.NewVault(keys, VaultKey),
	}
	a.Evidence, err = evidence.New(evidence.Config{
		Blobs: a.objects, Tails: azure.NewTails(tails), Keys: a.keys, Vault: a.vault, VaultHosts: []string{vault.Host},
	})
	if err != nil {
		return nil, err
	}
	a.Jobs, a.Failures = azure.NewLookbacks(a.tenant, tables), azure.NewFailures(a.tenant, tables)
	a.Catalog, a.Roster, a.Trail = azure.NewCatalog(a.tenant, tables), azure.NewRoster(a.tenant, tables), custody.Log{Trail: azure.NewTrail(a.tenant, tables)}
	return a, nil
}

// Item is one message version as it lies in evidence.
type Item struct {
	Conversation conversation.ID
	Object       string
	Lane         conversation.MessageLane
	Message      conversation.Message
}

// Contents is everything an archive holds.
type Contents struct {
	Conversations []conversation.Conversation
	Items         []Item
	Attachments   []conversation.Attachment
	Objects       int
	Receipts      int
	// Missing lists objects that the catalog promises and storage lacks.
	Missing []string
	// Orphans lists blobs that no conversation knows of.
	Orphans []string

	parts map[string]filePart // of files, by object
}

// Read opens every object of every conversation from..to and compares storage with
// the catalog in both directions.
func (a *Archive) Read(ctx context.Context, from, to time.Time) (Contents, error) {
	var c Contents
	known := map[string]bool{}
	page := conversation.PageRequest{}
	for {
		got, err := a.Catalog.ByTime(ctx, from, to, page)
		if err != nil {
			return c, err
		}
		for _, conv := range got.Conversations {
			if conv.Call != nil {
				if err := a.callObjects(ctx, conv, known); err != nil {
					return c, err
				}
				continue
			}
			if err := a.readConversation(ctx, conv, known, &c); err != nil {
				return c, err
			}
		}
		if !got.More {
			break
		}
		page.After = got.Conversations[len(got.Conversations)-1].Position()
	}
	pager := a.blobs.NewListBlobsFlatPager(nil)
	for pager.More() {
		list, err := pager.NextPage(ctx)
		if err != nil {
			return c, fmt.Errorf("list blobs: %w", err)
		}
		for _, b := range list.Segment.BlobItems {
			if !known[*b.Name] && !evidence.IsEscrow(*b.Name) {
				c.Orphans = append(c.Orphans, *b.Name)
			}
		}
	}
	return c, nil
}

func (a *Archive) readConversation(ctx context.Context, conv conversation.Conversation, known map[string]bool, c *Contents) error {
	slice, err := a.Catalog.Slice(ctx, conv.ID)
	if err != nil {
		return err
	}
	c.Conversations = append(c.Conversations, slice.Conversation)
	c.Receipts += len(slice.Receipts)
	attachments, err := a.Catalog.Attachments(ctx, conv.ID)
	if err != nil {
		return err
	}
	c.Attachments = append(c.Attachments, attachments...)
	receipt, err := a.Trail.Append(ctx, custody.Event{
		Tenant: a.tenant, Action: custody.SystemRead, System: "archive-check", Item: string(conv.ID), Reason: "comparison with the tenant",
	})
	if err != nil {
		return err
	}
	for _, o := range slice.Objects {
		ref := evidence.Ref{Tenant: a.tenant, Unit: string(conv.ID), Object: o.Name}
		obj, err := a.Evidence.Open(ctx, ref, receipt)
		if errors.Is(err, evidence.ErrNotFound) {
			c.Missing = append(c.Missing, o.Name)
			continue
		}
		if err != nil {
			return err
		}
		known[string(a.tenant)+"/"+string(conv.ID)+"/"+o.Name] = true
		plain, err := obj.ReadAll(1 << 30)
		if err != nil {
			return err
		}
		c.Objects++
		if o.File != nil {
			if err := c.addPart(o, plain); err != nil {
				return err
			}
			continue
		}
		h, items, err := conversation.DecodeBatch(plain)
		if err != nil {
			return fmt.Errorf("object %s: %w", o.Name, err)
		}
		if len(items) != len(o.Versions) {
			return fmt.Errorf("object %s holds %d versions, its row lists %d", o.Name, len(items), len(o.Versions))
		}
		for i, raw := range items {
			m := conversation.ReadMessage(raw, h.Custodian)
			if m.VersionKey != o.Versions[i].VersionKey {
				return fmt.Errorf("object %s: version %d is not the one its row lists", o.Name, i)
			}
			c.Items = append(c.Items, Item{conv.ID, o.Name, h.Lane, m})
		}
	}
	return nil
}

// Blobs reads every blob of evidence and of tails as it lies in storage.
func (a *Archive) Blobs(ctx context.Context, take func(name string, content []byte)) error {
	for _, c := range []*container.Client{a.blobs, a.tails} {
		pager := c.NewListBlobsFlatPager(nil)
		for pager.More() {
			list, err := pager.NextPage(ctx)
			if err != nil {
				return fmt.Errorf("list blobs: %w", err)
			}
			for _, b := range list.Segment.BlobItems {
				content, err := readBlob(ctx, c, *b.Name)
				if err != nil {
					return fmt.Errorf("read blob %s: %w", *b.Name, err)
				}
				take(*b.Name, content)
			}
		}
	}
	return nil
}

func readBlob(ctx context.Context, c *container.Client, name string) (content []byte, err error) {
	got, err := c.NewBlobClient(name).DownloadStream(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, got.Body.Close()) }()
	return io.ReadAll(got.Body)
}
