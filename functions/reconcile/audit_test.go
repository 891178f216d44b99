package reconcile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"steno/functions/reconcile"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("11111111-aaaa-4bbb-8ccc-222222222222")
	host   = "steno.vault.azure.net"
	wrap   = "steno-wrap"
	app    = "1950a258-227b-4e31-a9cf-aaaaaaaaaaaa"
)

var start = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)

// rig is an archive as the audit sees it: receipts, keys and the vault's log.
type rig struct {
	t     testing.TB
	now   time.Time
	log   storetest.VaultLog
	off   bool
	trail storetest.Trail
	keys  storetest.Keys
	state state
	out   bytes.Buffer
	c     reconcile.AuditConfig
}

// state fails when it is told to.
type state struct {
	storetest.Tiles
	fails int
}

var errDown = errors.New("storage is down")

func (s *state) SwapHead(ctx context.Context, body []byte, revision string) error {
	if s.fails > 0 {
		s.fails--
		return errDown
	}
	return s.Tiles.SwapHead(ctx, body, revision)
}

func newRig(t testing.TB) *rig {
	return &rig{t: t, now: start, c: reconcile.AuditConfig{Tenant: tenant, Key: wrap, VaultHosts: []string{host}}}
}

func (r *rig) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) run() {
	r.t.Helper()
	r.ok(r.try())
}

func (r *rig) try() error {
	c := r.c
	c.Now = func() time.Time { return r.now }
	s := reconcile.AuditStores{Log: &r.log, Trail: custody.Log{Trail: &r.trail, Now: c.Now}, Keys: &r.keys, State: &r.state}
	if r.off {
		s.Log = nil
	}
	return reconcile.NewAudit(c, s, slog.New(slog.NewTextHandler(&r.out, nil))).Run(r.t.Context())
}

// unit stores n keys of a unit.
func (r *rig) unit(unit string, n int) {
	r.t.Helper()
	for range n {
		r.ok(r.keys.Insert(r.t.Context(), evidence.WrappedKey{Tenant: tenant, Unit: unit, ID: evidence.NewObjectID()}))
	}
}

// event appends an event of a time.
func (r *rig) event(at time.Time, e custody.Event) {
	r.t.Helper()
	e.Tenant, e.System = tenant, "test"
	_, err := custody.Log{Trail: &r.trail, Now: func() time.Time { return at }}.Append(r.t.Context(), e)
	r.ok(err)
}

func (r *rig) read(at time.Time, unit string) {
	r.event(at, custody.Event{Action: custody.SystemRead, Item: unit})
}

// use is an unwrap as the vault logs it, five minutes later.
func (r *rig) use(at time.Time, change ...func(*evidence.VaultUse)) evidence.VaultUse {
	u := evidence.VaultUse{At: at, Operation: "KeyUnwrap", Host: host, Key: wrap, Version: "v1", Caller: app, Address: "10.0.0.4", Request: evidence.NewObjectID(), Granted: true}
	for _, f := range change {
		f(&u)
	}
	r.log.Write(at.Add(5*time.Minute), storetest.VaultRecord(u))
	return u
}

// found lists the events of unwraps that nothing explains.
func (r *rig) found() (out []custody.Record) {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), start.AddDate(0, 0, -30), start.AddDate(0, 0, 30), 1_000_000)
	r.ok(err)
	for _, x := range records {
		if x.Action == custody.Unexplained {
			out = append(out, x)
		}
	}
	return out
}

func (r *rig) alarms(name string) int { return strings.Count(r.out.String(), "alarm="+name+" ") }

// wantOne fails unless exactly this unwrap was named.
func (r *rig) wantOne(what string, u evidence.VaultUse) {
	r.t.Helper()
	got := r.found()
	if len(got) != 1 || !strings.Contains(got[0].Detail, u.Request) || !strings.Contains(got[0].Detail, "caller="+u.Caller) || !strings.Contains(got[0].Detail, u.Key+"/"+u.Version) || !strings.Contains(got[0].Detail, u.At.Format(time.RFC3339Nano)) {
		r.t.Errorf("%s: %+v, want %+v", what, got, u)
	}
	if r.alarms("unwrap") != len(got) || !strings.Contains(r.out.String(), u.Request) {
		r.t.Errorf("%s: the log says %s", what, r.out.String())
	}
}

func TestOneSurplusUnwrapIsNamed(t *testing.T) {
	const unit = "unit-1"
	for what, surplus := range map[string]func(r *rig) evidence.VaultUse{
		"with no receipt at all": func(r *rig) evidence.VaultUse { return r.use(start.Add(2 * time.Hour)) },
		"before the receipt":     func(r *rig) evidence.VaultUse { return r.use(start.Add(-reconcile.Slack - time.Second)) },
		"after it ran out": func(r *rig) evidence.VaultUse {
			return r.use(start.Add(custody.Lifetime + reconcile.Slack + time.Second))
		},
		"beyond the number of the keys":    func(r *rig) evidence.VaultUse { return r.use(start.Add(4 * time.Second)) },
		"of a caller that is none of ours": func(r *rig) evidence.VaultUse { return r.use(start, func(u *evidence.VaultUse) { u.Caller = "0000" }) },
		"by decryption with the wrapping key": func(r *rig) evidence.VaultUse {
			return r.use(start, func(u *evidence.VaultUse) { u.Operation = "KeyDecrypt" })
		},
		"under an old version of the key": func(r *rig) evidence.VaultUse {
			return r.use(start.Add(4*time.Second), func(u *evidence.VaultUse) { u.Version = "v0" })
		},
	} {
		r := newRig(t)
		r.c.Callers = []string{app}
		r.unit(unit, 3)
		r.read(start, unit)
		for i := range 3 {
			r.use(start.Add(time.Duration(i) * time.Second))
		}
		u := surplus(r)
		// What is no unwrap of a conversation key is nobody's business here.
		r.use(start.Add(3*time.Hour), func(u *evidence.VaultUse) { u.Granted = false })
		r.use(start.Add(3*time.Hour), func(u *evidence.VaultUse) { u.Operation = "KeySign" })
		r.use(start.Add(3*time.Hour), func(u *evidence.VaultUse) { u.Key = "another" })
		r.use(start.Add(3*time.Hour), func(u *evidence.VaultUse) { u.Host = "other.vault.azure.net" })
		for range 40 {
			r.now = r.now.Add(10 * time.Minute)
			r.run()
		}
		r.wantOne(what, u)
	}
}

func TestNothingIsJudgedBeforeTheLogIsComplete(t *testing.T) {
	r := newRig(t)
	u := r.use(start)
	r.now = start.Add(reconcile.DefaultLag)
	r.run()
	if len(r.found()) != 0 {
		t.Error("judged while the log may still grow")
	}
	r.now = r.now.Add(time.Second)
	r.run()
	r.wantOne("a second later", u)
}

func TestAReceiptIsUsedOnceAcrossRuns(t *testing.T) {
	r := newRig(t)
	r.unit("unit-1", 1)
	r.read(start, "unit-1")
	r.use(start.Add(time.Second))
	u := r.use(start.Add(2 * time.Minute))
	for at := start.Add(reconcile.DefaultLag); at.Before(start.Add(time.Hour)); at = at.Add(time.Minute) {
		r.now = at
		r.run()
	}
	r.wantOne("the second unwrap", u)
}

func TestARunThatDiesRaisesItsAlarmsAgainAndLosesNone(t *testing.T) {
	r := newRig(t)
	r.run()
	u := r.use(start)
	r.now = start.Add(time.Hour)
	r.state.fails = 1
	if err := r.try(); !errors.Is(err, errDown) {
		t.Fatalf("run: %v", err)
	}
	r.run()
	r.run()
	if got := r.found(); len(got) != 2 || !strings.Contains(got[1].Detail, u.Request) {
		t.Errorf("%+v", got)
	}
}

func TestUnwrapsOfWhatIsDestroyedSinceAreExplained(t *testing.T) {
	r := newRig(t)
	for _, unit := range []string{"thread-20260101", "leg-1"} { // a chat, and a leg of a call
		r.read(start, unit)
		r.use(start.Add(time.Second))
		r.use(start.Add(2 * time.Second))
	}
	r.event(start.Add(time.Minute), custody.Event{Action: custody.Erase, Item: "thread-20260101", Detail: "set=x ground=erasure units=1 keys=2"})
	r.event(start.Add(time.Minute), custody.Event{Action: custody.Dispose, Item: "call-20260101", Detail: "set=x ground=expiry units=1 keys=2"})
	r.event(start, custody.Event{Action: custody.Exported, Item: "export-1", Detail: "fetch"})
	r.use(start.Add(time.Second))
	r.event(start.Add(time.Minute), custody.Event{Action: custody.PackageExpired, Item: "export-1"})
	r.event(start.Add(8*time.Minute), custody.Event{Action: custody.Exported, Item: "export-2", Detail: "finished"})
	u := r.use(start.Add(8 * time.Minute)) // an event that opens nothing explains nothing
	r.now = start.Add(time.Hour)
	r.run()
	r.wantOne("behind an event that opens nothing", u)
}

func TestUnwrapsFasterThanIsUsualRaiseAnAlarm(t *testing.T) {
	r := newRig(t)
	for i := range 2 * reconcile.DefaultRate {
		unit := fmt.Sprintf("unit-%d", i)
		r.unit(unit, 1)
		r.read(start, unit)
		r.use(start.Add(time.Duration(i) * 10 * time.Millisecond)) // 100 a second
	}
	r.now = start.Add(time.Hour)
	r.run()
	if r.alarms("unwrap-rate") != 1 || len(r.found()) != 0 {
		t.Errorf("%s", r.out.String())
	}
	r.out.Reset()
	for i := range reconcile.DefaultRate { // at the limit, and from two places
		r.read(r.now, fmt.Sprintf("unit-%d", i))
		r.use(r.now)
		r.read(r.now, fmt.Sprintf("unit-%d", 50+i))
		r.use(r.now, func(u *evidence.VaultUse) { u.Address = "10.0.0.5" })
	}
	r.now = r.now.Add(time.Hour)
	r.run()
	if r.alarms("unwrap-rate") != 0 || len(r.found()) != 0 {
		t.Errorf("%s", r.out.String())
	}
}

func TestALogThatIsSilentOrBrokenRaisesAnAlarm(t *testing.T) {
	r := newRig(t)
	r.use(start, func(u *evidence.VaultUse) { u.Operation = "KeyGet" })
	r.now = start.Add(time.Hour)
	r.run()
	for range 2 * 24 { // nobody reads: silence is nothing
		r.now = r.now.Add(time.Hour)
		r.run()
	}
	if r.alarms("vault-log") != 0 {
		t.Fatalf("%s", r.out.String())
	}
	r.read(r.now, "unit-1")
	for range 23 {
		r.now = r.now.Add(time.Hour)
		r.run()
	}
	for range 2 {
		r.now = r.now.Add(time.Hour)
		r.run()
	}
	if r.alarms("vault-log") != 1 {
		t.Errorf("%d alarms: %s", r.alarms("vault-log"), r.out.String())
	}
	r.out.Reset()
	r.log.Write(r.now, []byte(`{"records":[`))
	r.now = r.now.Add(time.Hour)
	r.run()
	if r.alarms("vault-log") == 0 {
		t.Error("a line that cannot be read is passed over")
	}
}

func TestWithoutALogOfTheVaultTheAuditSaysOnceADayThatItIsOff(t *testing.T) {
	r := newRig(t)
	r.off = true
	for range 3 * 24 {
		r.run()
		r.now = r.now.Add(time.Hour)
	}
	if n := strings.Count(r.out.String(), "alarm=unwrap-audit"); n != 4 {
		t.Errorf("said %d times on four days", n)
	}
}

func TestWhatACallerPutsIntoTheLogCannotForgeALine(t *testing.T) {
	r := newRig(t)
	r.use(start, func(u *evidence.VaultUse) {
		u.Request = "x\nalarm=none caller=friend " + strings.Repeat("y", 500)
		u.Caller = "a b\u2028c"
	})
	r.now = start.Add(time.Hour)
	r.run()
	got := r.found()
	if len(got) != 1 || strings.Contains(got[0].Detail, "caller=friend") || strings.ContainsAny(got[0].Detail, "\n\u2028") || len(got[0].Detail) > 1000 {
		t.Errorf("%+v", got)
	}
}

// TestHonestHistoriesRaiseNoAlarm lets processes with caches of their own read units at random,
// each reading behind a receipt, and audits what the vault logged of it, which arrives late,
// in disorder and more than once.
func TestHonestHistoriesRaiseNoAlarm(t *testing.T) {
	unwraps, receipts := 0, 0
	for seed := range uint64(histories) {
		h := history(t, seed)
		h.audit()
		unwraps, receipts = unwraps+len(h.uses), receipts+h.receipts
		if got := h.found(); len(got) != 0 {
			t.Fatalf("seed %d: %d of %d unwraps are not explained by %d receipts, the first: %s", seed, len(got), len(h.uses), h.receipts, got[0].Detail)
		}
	}
	t.Logf("%d unwraps, %d receipts", unwraps, receipts)
}

// TestASurplusUnwrapInAnHonestHistoryIsAlwaysOneAlarm puts one more unwrap where no receipt is alive.
func TestASurplusUnwrapInAnHonestHistoryIsAlwaysOneAlarm(t *testing.T) {
	for seed := range uint64(1000) {
		h := history(t, seed)
		u := h.use(h.quiet)
		h.audit()
		if got := h.found(); len(got) != 1 || !strings.Contains(got[0].Detail, u.Request) {
			t.Fatalf("seed %d: %+v", seed, got)
		}
	}
}

type honest struct {
	*rig
	rnd      *rand.Rand
	uses     []evidence.VaultUse
	receipts int
	end      time.Time
	quiet    time.Time // a time at which no receipt is alive
}

func history(t testing.TB, seed uint64) *honest {
	h := &honest{rig: newRig(t), rnd: rand.New(rand.NewPCG(seed, 44))}
	units := map[string]int{}
	for i := range 1 + h.rnd.IntN(4) {
		unit := fmt.Sprintf("unit-%d", i)
		units[unit] = 1 + h.rnd.IntN(4)
		h.unit(unit, units[unit])
	}
	type cached struct {
		process int
		key     string
	}
	until := map[cached]time.Time{}
	at := start
	for range 1 + h.rnd.IntN(25) {
		at = at.Add(time.Duration(h.rnd.Int64N(int64(7 * time.Minute))))
		unit := fmt.Sprintf("unit-%d", h.rnd.IntN(len(units)))
		h.read(at, unit)
		h.receipts++
		process := h.rnd.IntN(3)
		// What the receipt is used for, in the order of time: keys of the unit, again and again.
		for when := at; when.Before(at.Add(custody.Lifetime)); when = when.Add(time.Duration(h.rnd.Int64N(int64(2 * time.Minute)))) {
			k := cached{process, fmt.Sprintf("%s/%d", unit, h.rnd.IntN(units[unit]))}
			if when.Before(until[k]) {
				continue
			}
			until[k] = when.Add(evidence.KeyCacheTTL)
			// The vault's clock is off a little, and the request takes its time.
			logged := when.Add(time.Duration(h.rnd.Int64N(int64(40*time.Second))) - 20*time.Second)
			u := evidence.VaultUse{At: logged, Operation: "KeyUnwrap", Host: host, Key: wrap, Version: "v1", Caller: app, Address: "10.0.0.4", Request: evidence.NewObjectID(), Granted: true}
			h.uses = append(h.uses, u)
			for range 1 + h.rnd.IntN(2) {
				h.log.Write(logged.Add(time.Duration(h.rnd.Int64N(int64(20*time.Minute)))), storetest.VaultRecord(u))
			}
		}
		if h.rnd.IntN(8) == 0 {
			at = at.Add(custody.Lifetime + 4*time.Minute)
			h.quiet = at.Add(-time.Minute - reconcile.Slack)
			at = at.Add(time.Minute)
		}
	}
	if h.quiet.IsZero() {
		h.quiet = at.Add(custody.Lifetime + 2*time.Minute)
	}
	h.end = at
	return h
}

// audit runs as a timer does, now and then.
func (h *honest) audit() {
	for h.now.Before(h.end.Add(2 * time.Hour)) {
		h.now = h.now.Add(time.Duration(h.rnd.Int64N(int64(90 * time.Minute))))
		h.run()
	}
}
