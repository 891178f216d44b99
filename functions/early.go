package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"steno/functions/internal/intake"
	"steno/functions/internal/keyring"
	"steno/functions/notifications"
	"steno/functions/notified"
	"steno/functions/subscriptions"
	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph/directory"
)

// lane is the early lane of messages: change notifications.
type lane struct {
	listen *subscriptions.Subscriptions
	hook   http.Handler
	drain  *notified.Notified
	queue  *azure.Queue
	inbox  *azure.Inbox
}

func (l lane) close(ctx context.Context) error {
	return errors.Join(l.queue.Close(ctx), l.inbox.Close(ctx))
}

// laneStores are those that the lane shares with others.
type laneStores struct {
	people   *directory.Directory
	roster   *azure.Roster
	catalog  *azure.Catalog
	evidence *evidence.Store
	trail    custody.Log
	parked   *azure.Queue
	files    *azure.Queue // to fetch attachments
}

// earlyLane connects what subscribes, what listens and what files.
func earlyLane(s settings, cred azcore.TokenCredential, tables *aztables.ServiceClient, keys *azkeys.Client, vaultHost string, opts azcore.ClientOptions,
	queues *azservicebus.Client, shared laneStores, log *slog.Logger,
) (l lane, err error) {
	c, err := container.NewClient(s.blobURL+"/"+s.notifications, cred, &container.ClientOptions{ClientOptions: opts})
	if err != nil {
		return l, fmt.Errorf("blobs: %w", err)
	}
	blobs, wrapped, register := azure.NewBlobs(c), azure.NewKeys(tables), azure.NewSubscriptions(s.tenant, tables)
	sealed, err := evidence.New(evidence.Config{Blobs: blobs, Keys: wrapped, Vault: azure.NewVault(keys, s.vaultKey), VaultHosts: []string{vaultHost}})
	if err != nil {
		return l, err
	}
	ring := keyring.New(s.tenant, register, sealed, evidence.Keeper{Objects: blobs, Keys: wrapped}, shared.trail)
	l.queue, l.inbox = azure.NewQueue(queues, queueNotified), azure.NewInbox(queues, queueNotified)
	l.listen = subscriptions.New(s.notify, shared.people, shared.roster, register, ring, log)
	l.hook, err = notifications.New(notifications.Config{
		Tenant: s.tenant, Base: "/" + routePrefix + "/notifications", Audience: s.notifyApp, KeysURL: s.notifyKeys, MaxMessage: azure.MaxMessage,
	}, register, l.queue, blobs, log)
	if err != nil {
		return l, err
	}
	in := intake.New(intake.Config{System: "notified", History: s.plan.History, ClaimLease: s.claimLease, Policies: s.keep.Policies, Tenant: s.tenant, Files: shared.files, FileMode: s.fileMode},
		shared.roster, shared.catalog, shared.evidence, shared.trail, log)
	l.drain = notified.New(notified.Config{Tenant: s.tenant, On: s.notify.URL != ""}, notified.Stores{
		Roster: shared.roster, Register: register, Catalog: shared.catalog, Intake: in, Keys: ring,
		Inbox: l.inbox, Queue: l.queue, Claims: blobs, Park: parkNotification(shared.parked),
	}, log)
	return l, nil
}
