package main

import (
	"net/http"

	"steno/functions/internal/intake"
	"steno/functions/internal/keyring"
	"steno/functions/notifications"
	"steno/functions/notified"
	"steno/functions/subscriptions"
	"steno/shared/azure"
	"steno/shared/custody"
	"steno/shared/evidence"
)

// laneStores are those that the lanes of messages share.
type laneStores struct {
	roster   *azure.Roster
	catalog  *azure.Catalog
	evidence *evidence.Store
	trail    custody.Log
}

// earlyLane is what subscribes to change notifications, what listens, and what files.
func (c *cloud) earlyLane(shared laneStores) (*subscriptions.Subscriptions, http.Handler, *notified.Notified) {
	s := c.s
	blobs, register := azure.NewBlobs(c.container(s.notifications)), azure.NewSubscriptions(s.tenant, c.tables)
	ring := keyring.New(s.tenant, register, c.sealed(evidence.Config{Blobs: blobs}), evidence.Keeper{Objects: blobs, Keys: azure.NewKeys(c.tables)}, shared.trail)
	hook, err := notifications.New(notifications.Config{
		Tenant: s.tenant, Base: "/" + routePrefix + "/notifications", Audience: s.notifyApp, KeysURL: s.notifyKeys, MaxMessage: azure.MaxMessage,
	}, register, c.notified, blobs, c.log)
	c.fault(err)
	in := intake.New(intake.Config{System: "notified", History: s.plan.History, ClaimLease: s.claimLease, Policies: s.keep.Policies, Tenant: s.tenant, Files: c.filesOf(shared.catalog)},
		shared.roster, shared.catalog, shared.evidence, shared.trail, c.log)
	drain := notified.New(notified.Config{Tenant: s.tenant, On: s.notify.URL != ""}, notified.Stores{
		Roster: shared.roster, Register: register, Catalog: shared.catalog, Intake: in, Keys: ring,
		Inbox: c.inbox, Queue: c.notified, Claims: blobs, Park: parkNotification(c.parked),
	}, c.log)
	return subscriptions.New(s.notify, c.people, shared.roster, register, ring, c.log), hook, drain
}
