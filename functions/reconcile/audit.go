// Package reconcile compares what should have happened with what did.
//
// # Coverage
//
// Every day it states what was expected of each recorded user and team, and what became of it;
// package coverage has the words. It reads the catalog for what was captured and for which
// stretches of time were read, and Graph's call records for what else there was. The statement
// is signed, stored write-once, and bound in the custody log. What is missing is told to
// whoever runs Steno: in the log, by webhook, by mail.
//
// A day with C custodians and N conversations costs some 3·C + N queries, two write operations
// and one vault signature for each of its statements.
//
// # The audit of unwraps
//
// Nothing is read without a custody event, because evidence opens only against a receipt.
// Whoever unwraps a conversation key without that door leaves no event, but the vault logs
// each unwrap, out of reach of those who run Steno. So each unwrap in the vault's log must be
// explained by a receipt: one that was alive at the time, of a unit that has as many keys as
// unwraps are put down to it. One that none explains is an alarm, and an event in the trail.
//
// What this cannot see: keys are cached for five minutes, so some receipts cause no unwrap,
// and a stolen one next to those is taken for theirs. A receipt lasts five minutes; outside
// of them, and beyond their number, every single unwrap is seen.
//
// What it may take for theft though it is none: an answer of the vault that was lost and asked
// for again, and a process that opens so much that keys fall out of its cache
// (evidence.KeyCacheSize) while a receipt lasts.
package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// Defaults and limits.
const (
	// DefaultLag is how old the vault's log must be before it is taken for complete. The vault
	// promises ten minutes. https://learn.microsoft.com/azure/key-vault/general/logging
	DefaultLag = 30 * time.Minute
	// DefaultRate is how many unwraps a second of one caller at one address raise no alarm.
	DefaultRate = 50
	// Slack is how far the clocks of vault and trail may differ, together with how long a
	// request to the vault takes.
	Slack = time.Minute
	// FirstLook is how far back the first run looks.
	FirstLook = 24 * time.Hour
	// Silence is how long the vault's log may be empty while content is opened.
	Silence = 24 * time.Hour

	step    = time.Hour       // how much is audited at a time
	longest = 5 * time.Minute // how long a run goes on; the next one does the rest
	named   = 100             // how many unwraps of a step are named
	system  = "reconcile"
)

// AuditConfig is what the audit needs to know.
type AuditConfig struct {
	Tenant     teams.TenantID
	Key        string        // name of the wrapping key
	VaultHosts []string      // as in evidence.Config
	Callers    []string      // application ids that may unwrap; empty means that any may
	Lag        time.Duration // DefaultLag if 0
	Rate       int           // DefaultRate if 0
	Now        func() time.Time
}

// Keys tells how many keys a unit has.
type Keys interface {
	List(ctx context.Context, tenant teams.TenantID, unit string) ([]evidence.WrappedKey, error)
}

// State is where progress is kept: a small document that is replaced by whoever read it.
// custody.ErrMoved if it changed meanwhile.
type State interface {
	Head(ctx context.Context) (body []byte, revision string, err error)
	SwapHead(ctx context.Context, body []byte, revision string) error
}

// AuditStores is what is compared with what.
type AuditStores struct {
	Log   evidence.VaultLog // nil: the audit is off, and says so once a day
	Trail custody.Log
	Keys  Keys
	State State
}

// Audit explains unwraps.
type Audit struct {
	c   AuditConfig
	s   AuditStores
	log *slog.Logger
}

// NewAudit returns an Audit.
func NewAudit(c AuditConfig, s AuditStores, log *slog.Logger) *Audit {
	c.Lag, c.Rate = cmp.Or(c.Lag, DefaultLag), cmp.Or(c.Rate, DefaultRate)
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Audit{c: c, s: s, log: log}
}

// Run audits what the vault's log has since the last run, up to a lag behind now. A run that
// dies is repeated from where its last step ended: an alarm may be raised twice, and none is lost.
func (r *Audit) Run(ctx context.Context) error {
	p := &pass{Audit: r, start: r.c.Now().UTC(), capacity: map[string]int{}}
	body, revision, err := r.s.State.Head(ctx)
	if err != nil {
		return fmt.Errorf("reconcile: read progress: %w", err)
	}
	if p.state, err = decodeProgress(body); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	if r.s.Log == nil {
		return p.off(ctx, revision)
	}
	end := p.start.Add(-r.c.Lag).Truncate(time.Second)
	if p.state.To.IsZero() {
		p.state.To = end.Add(-FirstLook)
	}
	for p.state.To.Before(end) && r.c.Now().Sub(p.start) < longest {
		to := p.state.To.Add(step)
		if to.After(end) {
			to = end
		}
		if err := p.audit(ctx, p.state.To, to); err != nil {
			return fmt.Errorf("reconcile: audit of unwraps from %s on: %w", p.state.To.Format(time.RFC3339), err)
		}
		if revision, err = p.save(ctx, revision); err != nil {
			return fmt.Errorf("reconcile: %w", err)
		}
	}
	r.log.InfoContext(ctx, "unwraps audited", slog.Time("to", p.state.To), slog.Int("unwraps", p.unwraps), slog.Int("unexplained", p.unexplained))
	return nil
}

// pass is one run.
type pass struct {
	*Audit
	start                time.Time
	state                progress
	capacity             map[string]int // keys by unit
	destroyed            []disposal     // nil until it was asked for
	unwraps, unexplained int
}

// alarm logs the line that operators match on.
func (p *pass) alarm(ctx context.Context, name, text string, attrs ...any) {
	p.log.ErrorContext(ctx, text, append([]any{slog.String("alarm", name)}, attrs...)...)
}

// audit explains the unwraps of one stretch of time.
func (p *pass) audit(ctx context.Context, from, to time.Time) error {
	var uses []evidence.VaultUse
	read, err := p.s.Log.Uses(ctx, from, to, p.c.Lag, func(u evidence.VaultUse) error {
		if u.Opens() && u.Key == p.c.Key && slices.ContainsFunc(p.c.VaultHosts, func(h string) bool { return strings.EqualFold(h, u.Host) }) {
			uses = append(uses, u)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(uses, func(a, b evidence.VaultUse) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Request, b.Request))
	})
	receipts, err := p.receipts(ctx, from, to)
	if err != nil {
		return err
	}
	surplus, err := p.explain(ctx, uses, receipts)
	if err != nil {
		return err
	}
	for i, u := range surplus {
		if i == named {
			p.alarm(ctx, "unwrap", "more unwraps that no custody event explains", slog.Int("unwraps", len(surplus)-named), slog.Time("from", from), slog.Time("to", to))
			break
		}
		if err := p.name(ctx, u); err != nil {
			return err
		}
	}
	p.unwraps, p.unexplained = p.unwraps+len(uses), p.unexplained+len(surplus)
	p.rate(ctx, uses)
	p.listen(ctx, to, read, within(receipts, from, to))
	p.state.keep(receipts, to)
	p.state.To = to
	return nil
}

// name puts an unwrap that nothing explains on record and raises the alarm.
func (p *pass) name(ctx context.Context, u evidence.VaultUse) error {
	key := clean(u.Key + "/" + u.Version)
	detail := fmt.Sprintf("at=%s operation=%s caller=%s address=%s request=%s", u.At.Format(time.RFC3339Nano), clean(u.Operation), clean(u.Caller), clean(u.Address), clean(u.Request))
	_, err := p.s.Trail.Append(ctx, custody.Event{Tenant: p.c.Tenant, Action: custody.Unexplained, System: system, Item: "unwrap", Detail: "key=" + key + " " + detail})
	if err != nil {
		return err
	}
	p.alarm(ctx, "unwrap", "a conversation key was unwrapped and no custody event explains it",
		slog.Time("at", u.At), slog.String("key", key), slog.String("caller", clean(u.Caller)), slog.String("operation", clean(u.Operation)), slog.String("address", clean(u.Address)), slog.String("request", clean(u.Request)))
	return nil
}

// clean keeps what ids and addresses are made of: parts of a record are the caller's choice.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || strings.ContainsRune(".:/_-", c) {
			return c
		}
		return '?'
	}, s)
	return s[:min(len(s), 160)]
}

// rate raises an alarm for each caller that unwrapped faster than allowed, once a step.
func (p *pass) rate(ctx context.Context, uses []evidence.VaultUse) {
	type second struct {
		caller, address string
		at              time.Time
	}
	counts := map[second]int{}
	for _, u := range uses {
		counts[second{u.Caller, u.Address, u.At.Truncate(time.Second)}]++
	}
	worst := map[[2]string]second{}
	for s, n := range counts {
		k := [2]string{s.caller, s.address}
		if n > p.c.Rate && n > counts[worst[k]] {
			worst[k] = s
		}
	}
	for _, s := range worst {
		p.alarm(ctx, "unwrap-rate", "conversation keys were unwrapped faster than is usual",
			slog.Time("at", s.at), slog.Int("unwraps", counts[s]), slog.Int("limit", p.c.Rate), slog.String("caller", clean(s.caller)), slog.String("address", clean(s.address)))
	}
}

// listen raises an alarm where the log cannot be relied on.
func (p *pass) listen(ctx context.Context, to time.Time, read evidence.VaultLogRead, opened int) {
	if read.Unreadable > 0 {
		p.alarm(ctx, "vault-log", "lines of the vault's log cannot be read", slog.Int("lines", read.Unreadable), slog.Time("to", to))
	}
	switch {
	case read.Records > 0 || p.state.Heard.IsZero():
		p.state.Heard, p.state.Opened = to, 0
	default:
		p.state.Opened += opened
	}
	if p.state.Opened > 0 && to.Sub(p.state.Heard) >= Silence {
		p.alarm(ctx, "vault-log", "the vault's log has nothing though content was opened: check its diagnostic setting", slog.Time("since", p.state.Heard), slog.Int("receipts", p.state.Opened))
		p.state.Heard, p.state.Opened = to, 0 // said once a day
	}
}
