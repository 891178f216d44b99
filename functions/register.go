package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"steno/functions/attachments"
	"steno/functions/chatexport"
	"steno/functions/export"
	"steno/functions/exportplan"
	"steno/functions/finalize"
	"steno/functions/fixity"
	"steno/functions/groupsync"
	"steno/functions/internal/funchost"
	"steno/functions/lookback"
	"steno/functions/notifications"
	"steno/functions/notified"
	"steno/functions/portal"
	"steno/functions/reconcile"
	"steno/functions/retention"
	"steno/functions/sequencer"
	"steno/functions/subscriptions"
	"steno/shared/azure"
	"steno/shared/notification"
)

// functions are the use cases behind the folders of this directory.
type functions struct {
	sync   *groupsync.Sync
	plan   *exportplan.Plan
	export *chatexport.Exporter
	past   *lookback.Lookback
	fetch  *attachments.Fetcher
	seal   *finalize.Finalizer
	order  *sequencer.Sequencer
	hand   *export.Exporter
	keep   *retention.Retention
	reread *fixity.Fixity
	audit  *reconcile.Audit
	stated *reconcile.Coverage
	listen *subscriptions.Subscriptions
	hook   http.Handler
	early  *notified.Notified
	web    http.Handler
}

// register binds each folder's function to its code.
func register(mux *funchost.Mux, f functions) {
	mux.Timer("groupsync", func(ctx context.Context, _ funchost.TimerInfo) error { return f.sync.Run(ctx) })
	mux.Timer("exportplan", func(ctx context.Context, _ funchost.TimerInfo) error { return f.plan.Run(ctx) })
	mux.Timer("lookbacksteps", func(ctx context.Context, _ funchost.TimerInfo) error { return f.past.Step(ctx) })
	mux.Timer("sequencer", func(ctx context.Context, _ funchost.TimerInfo) error { return f.order.Run(ctx) })
	mux.Timer("retention", func(ctx context.Context, _ funchost.TimerInfo) error { return f.keep.Run(ctx) })
	mux.Timer("reconcile", func(ctx context.Context, _ funchost.TimerInfo) error {
		return errors.Join(f.audit.Run(ctx), f.stated.Run(ctx))
	})
	mux.Timer("fixity", func(ctx context.Context, _ funchost.TimerInfo) error { return f.reread.Run(ctx) })
	mux.Timer("subscriptions", func(ctx context.Context, _ funchost.TimerInfo) error { return f.listen.Run(ctx) })
	mux.Timer("notified", func(ctx context.Context, _ funchost.TimerInfo) error { return f.early.Run(ctx) })
	mux.Queue("chatexport", "window", func(ctx context.Context, m funchost.Message) error { return f.export.Handle(ctx, m.Body) })
	mux.Queue("lookback", "job", func(ctx context.Context, m funchost.Message) error { return f.past.Handle(ctx, m.Body) })
	mux.Queue("attachments", "file", func(ctx context.Context, m funchost.Message) error { return f.fetch.Handle(ctx, m.Body) })
	mux.Queue("finalize", "leg", func(ctx context.Context, m funchost.Message) error { return f.seal.Handle(ctx, m.Body) })
	mux.Queue("export", "order", func(ctx context.Context, m funchost.Message) error { return f.hand.Handle(ctx, m.Body) })
	mux.HTTP("notifications", funchost.Route{Pattern: "notifications/{*kind}", MaxBody: notification.MaxDelivery, Timeout: notifications.Timeout}, f.hook)
	mux.HTTP("portal", funchost.Route{Pattern: "{*path}", MaxBody: 64 << 10, Timeout: 30 * time.Second}, f.web)
}

func portalConfig(s settings) portal.Config {
	return portal.Config{
		Base: "/" + routePrefix, Tenant: s.tenant, History: s.plan.History, Policies: s.keep.Policies,
		Audience: s.portalAudience, Client: s.portalClient, Scope: s.portalScope,
		Issuer: s.issuer, KeysURL: s.jwksURL, Authority: s.loginAuthority,
	}
}

// parkedMessage is what lies in the queue parked: what could not be handled, where it
// came from and why.
type parkedMessage struct {
	Function string    `json:"function"`
	Reason   string    `json:"reason"`
	Message  string    `json:"messageId"`
	Body     []byte    `json:"body"` // base64, byte for byte
	At       time.Time `json:"at"`
}

// park keeps a message that can never succeed in a queue of its own: a custom handler
// cannot dead-letter with a reason.
func park(q *azure.Queue) func(context.Context, funchost.Parked) error {
	return func(ctx context.Context, p funchost.Parked) error {
		body, err := json.Marshal(parkedMessage{
			Function: p.Function, Reason: p.Reason, Message: p.Message.ID, Body: p.Message.Body, At: time.Now().UTC(),
		})
		if err != nil {
			return fmt.Errorf("park message: %w", err)
		}
		return q.Send(ctx, "parked-"+p.InvocationID, body, time.Time{})
	}
}

// parkNotification keeps a notification that can never be handled in the same queue.
func parkNotification(q *azure.Queue) func(ctx context.Context, reason, id string, body []byte) error {
	return func(ctx context.Context, reason, id string, body []byte) error {
		b, err := json.Marshal(parkedMessage{Function: "notified", Reason: reason, Message: id, Body: body, At: time.Now().UTC()})
		if err != nil {
			return fmt.Errorf("park notification: %w", err)
		}
		return q.Send(ctx, "parked-"+id, b, time.Time{})
	}
}
