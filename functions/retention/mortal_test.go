package retention_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"steno/functions/retention"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
)

// life ends before or after the call of a number to any store: before, the call has no
// effect; after, it has, and nobody learns of it. Calls after that one have none.
type life struct {
	mu    sync.Mutex
	calls int
	ends  int // 0: never
	after bool
}

func (l *life) call(do func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls++
	switch {
	case l.ends == 0 || l.calls < l.ends:
		return do()
	case l.calls == l.ends && l.after:
		_ = do() // the process never sees what came of it
	}
	return errDead
}

// live runs a call that returns a value.
func live[T any](l *life, do func() (T, error)) (out T, err error) {
	err = l.call(func() (err error) { out, err = do(); return err })
	if err != nil {
		var none T
		return none, err
	}
	return out, nil
}

type mortalObjects struct {
	evidence.Governor
	l *life
}

func (m mortalObjects) List(ctx context.Context, p string) ([]evidence.TailInfo, error) {
	return live(m.l, func() ([]evidence.TailInfo, error) { return m.Governor.List(ctx, p) })
}
func (m mortalObjects) Protection(ctx context.Context, n string) (evidence.Protection, error) {
	return live(m.l, func() (evidence.Protection, error) { return m.Governor.Protection(ctx, n) })
}
func (m mortalObjects) Protect(ctx context.Context, n string, u time.Time) (bool, error) {
	return live(m.l, func() (bool, error) { return m.Governor.Protect(ctx, n, u) })
}
func (m mortalObjects) Unprotect(ctx context.Context, n string) error {
	return m.l.call(func() error { return m.Governor.Unprotect(ctx, n) })
}
func (m mortalObjects) Hold(ctx context.Context, n string, on bool) error {
	return m.l.call(func() error { return m.Governor.Hold(ctx, n, on) })
}
func (m mortalObjects) Delete(ctx context.Context, n string) error {
	return m.l.call(func() error { return m.Governor.Delete(ctx, n) })
}
func (m mortalObjects) Now(ctx context.Context) (time.Time, error) {
	return live(m.l, func() (time.Time, error) { return m.Governor.Now(ctx) })
}

type mortalRecords struct {
	evidence.Dated
	l *life
}

func (m mortalRecords) CreateUntil(ctx context.Context, n string, b []byte, u time.Time) error {
	return m.l.call(func() error { return m.Dated.CreateUntil(ctx, n, b, u) })
}

type mortalKeys struct {
	evidence.KeyRing
	l *life
}

func (m mortalKeys) List(ctx context.Context, t teams.TenantID, u string) ([]evidence.WrappedKey, error) {
	return live(m.l, func() ([]evidence.WrappedKey, error) { return m.KeyRing.List(ctx, t, u) })
}
func (m mortalKeys) Since(ctx context.Context, t teams.TenantID, since time.Time, f func(evidence.WrappedKey) error) error {
	return m.l.call(func() error { return m.KeyRing.Since(ctx, t, since, f) })
}
func (m mortalKeys) Delete(ctx context.Context, t teams.TenantID, u, id string) error {
	return m.l.call(func() error { return m.KeyRing.Delete(ctx, t, u, id) })
}

type mortalCatalog struct {
	retention.Catalog
	l *life
}

func (m mortalCatalog) Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error) {
	return live(m.l, func() (conversation.Slice, error) { return m.Catalog.Slice(ctx, id) })
}
func (m mortalCatalog) Call(ctx context.Context, k conversation.ThreadKey) (conversation.Call, error) {
	return live(m.l, func() (conversation.Call, error) { return m.Catalog.Call(ctx, k) })
}
func (m mortalCatalog) ByTime(ctx context.Context, a, b time.Time, p conversation.PageRequest) (conversation.Page, error) {
	return live(m.l, func() (conversation.Page, error) { return m.Catalog.ByTime(ctx, a, b, p) })
}
func (m mortalCatalog) Bury(ctx context.Context, id conversation.ID, d conversation.Disposed) error {
	return m.l.call(func() error { return m.Catalog.Bury(ctx, id, d) })
}

type mortalMatters struct {
	policy.Matters
	l *life
}

func (m mortalMatters) List(ctx context.Context) ([]policy.Matter, error) {
	return live(m.l, func() ([]policy.Matter, error) { return m.Matters.List(ctx) })
}
func (m mortalMatters) Replace(ctx context.Context, x policy.Matter) error {
	return m.l.call(func() error { return m.Matters.Replace(ctx, x) })
}

type mortalApprovals struct {
	policy.Approvals
	l *life
}

func (m mortalApprovals) Open(ctx context.Context) ([]policy.Proposal, error) {
	return live(m.l, func() ([]policy.Proposal, error) { return m.Approvals.Open(ctx) })
}
func (m mortalApprovals) Get(ctx context.Context, d string) (policy.Proposal, error) {
	return live(m.l, func() (policy.Proposal, error) { return m.Approvals.Get(ctx, d) })
}
func (m mortalApprovals) Replace(ctx context.Context, p policy.Proposal) error {
	return m.l.call(func() error { return m.Approvals.Replace(ctx, p) })
}

type mortalDispositions struct {
	policy.Dispositions
	l *life
}

func (m mortalDispositions) Insert(ctx context.Context, d policy.Disposition) error {
	return m.l.call(func() error { return m.Dispositions.Insert(ctx, d) })
}
func (m mortalDispositions) Get(ctx context.Context, c string) (policy.Disposition, error) {
	return live(m.l, func() (policy.Disposition, error) { return m.Dispositions.Get(ctx, c) })
}
func (m mortalDispositions) List(ctx context.Context) ([]policy.Disposition, error) {
	return live(m.l, func() ([]policy.Disposition, error) { return m.Dispositions.List(ctx) })
}
func (m mortalDispositions) Replace(ctx context.Context, d policy.Disposition) error {
	return m.l.call(func() error { return m.Dispositions.Replace(ctx, d) })
}
func (m mortalDispositions) Delete(ctx context.Context, c string) error {
	return m.l.call(func() error { return m.Dispositions.Delete(ctx, c) })
}
func (m mortalDispositions) Certify(ctx context.Context, c policy.Certificate) error {
	return m.l.call(func() error { return m.Dispositions.Certify(ctx, c) })
}
func (m mortalDispositions) SaveSweep(ctx context.Context, s policy.Sweep) error {
	return m.l.call(func() error { return m.Dispositions.SaveSweep(ctx, s) })
}

type mortalTrail struct {
	custody.Trail
	l *life
}

func (m mortalTrail) Insert(ctx context.Context, r custody.Record) error {
	return m.l.call(func() error { return m.Trail.Insert(ctx, r) })
}
func (m mortalTrail) Range(ctx context.Context, a, b time.Time, n int) ([]custody.Record, error) {
	return live(m.l, func() ([]custody.Record, error) { return m.Trail.Range(ctx, a, b, n) })
}

// mortal runs once as a process that lives so long.
func (r *rig) mortal(l *life) error {
	s := r.stores()
	s.Catalog, s.Matters, s.Approvals, s.Dispositions = mortalCatalog{r.catalog, l}, mortalMatters{r.matters, l}, mortalApprovals{r.approved, l}, mortalDispositions{r.disposed, l}
	s.Keeper.Records = mortalRecords{s.Keeper.Records, l}
	s.Keeper.Objects, s.Keeper.Keys, s.Trail.Trail = mortalObjects{r.blobs, l}, mortalKeys{r.keys, l}, mortalTrail{r.trail, l}
	return r.retention(s).Run(r.t.Context())
}

// scene is one of each kind.
type scene struct {
	chat, call, held, lifted, erased, young conversation.ID
	leg                                     conversation.LegID
	over, holding                           policy.Matter
}

func (r *rig) scene() scene {
	r.t.Helper()
	var s scene
	s.chat = r.chat(old, "chat", time.Time{}, false)
	s.call, s.leg = r.call(old.Add(time.Hour), time.Time{})
	s.held = r.chat(old.Add(2*time.Hour), "held", time.Time{}, false)
	s.lifted = r.chat(old.Add(3*time.Hour), "lifted", time.Time{}, false)
	s.erased = r.chat(fresh, "erased", today.Add(48*time.Hour), false)
	s.young = r.chat(fresh.Add(time.Hour), "young", time.Time{}, false)
	s.holding, s.over = r.matter(s.held), r.matter(s.lifted)
	r.release(s.over, today.Add(-policy.DefaultGrace-time.Hour))
	r.agreed(policy.ActionErase, today.Add(-8*24*time.Hour), attested, string(s.erased))
	return s
}

// behind fails if anything was destroyed without a custody event that says so.
func (r *rig) behind(what string, s scene) {
	r.t.Helper()
	dispose, erase := r.events(custody.Dispose), r.events(custody.Erase)
	for id, unit := range map[conversation.ID]string{s.chat: string(s.chat), s.call: string(s.leg), s.lifted: string(s.lifted), s.erased: string(s.erased)} {
		objects, err := r.blobs.List(r.t.Context(), string(r.tenant)+"/"+unit+"/")
		r.ok(err)
		keys, err := r.keys.List(r.t.Context(), r.tenant, unit)
		r.ok(err)
		if (len(objects) == 0 || len(keys) == 0) && dispose[string(id)].ID == "" && erase[string(id)].ID == "" {
			r.t.Errorf("%s: %s was destroyed and nothing on record says so", what, id)
		}
	}
	r.want(what+": held", kept, s.held)
	r.want(what+": young", kept, s.young)
}

func TestAKillAtAnyStorageCallEndsWhereARunThatLivedEnds(t *testing.T) {
	deaths := 0
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			r := newRig(t)
			r.escrowed()
			s := r.scene()
			l := &life{ends: n, after: after}
			err := r.mortal(l)
			if l.calls < n {
				if err != nil {
					t.Fatalf("a run that lived: %v", err)
				}
				break // the run was over before
			}
			deaths++
			what := fmt.Sprintf("killed at call %d, after %t", n, after)
			r.behind(what, s)
			r.run()
			r.run()
			r.want(what+": chat", gone, s.chat)
			r.want(what+": call", gone, s.call, string(s.leg))
			r.want(what+": lifted", gone, s.lifted)
			r.want(what+": erased", shredded, s.erased)
			r.behind(what, s)
			r.pass(25 * time.Hour)
			r.certifiedOnce(what, 3, s)
			if t.Failed() {
				t.FailNow()
			}
		}
	}
	if deaths < 100 {
		t.Errorf("only %d deaths: the run makes more calls than that", deaths)
	}
	t.Logf("%d deaths", deaths)
}

// certifiedOnce runs on the next day, dying at each call of the first tries, and fails
// unless each disposition is in one certificate.
func (r *rig) certifiedOnce(what string, want int, s scene) {
	r.t.Helper()
	for n := range 4 {
		_ = r.mortal(&life{ends: 20 + n*15, after: n%2 == 0}) // a death, or none: the next run tells
	}
	r.run()
	certs, err := r.disposed.Certificates(r.t.Context(), today, today.AddDate(0, 0, 1))
	r.ok(err)
	listed := map[string]int{}
	for _, c := range certs {
		for _, id := range []conversation.ID{s.chat, s.call, s.lifted, s.erased, s.held, s.young} {
			if containsID(c.Text, id) {
				listed[string(id)]++
			}
		}
		if r.events(custody.Certified)["certificate-"+c.ID].ID == "" {
			r.t.Errorf("%s: certificate %s is not on record", what, c.ID)
		}
	}
	if len(listed) != want {
		r.t.Errorf("%s: certified %v", what, listed)
	}
	for id, n := range listed {
		if n != 1 {
			r.t.Errorf("%s: %s is in %d certificates", what, id, n)
		}
	}
}
