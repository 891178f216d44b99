package fixity_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/fixity"
	"steno/functions/sequencer"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
)

const (
	tenant = teams.TenantID("11111111-1111-4111-8111-111111111111")
	alice  = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
)

var start = time.Date(2026, 5, 4, 10, 0, 0, 0, time.UTC)

var errStorage = errors.New("storage is away")

// rig is fixity over stores in memory, with a clock that is driven.
type rig struct {
	t       *testing.T
	now     time.Time
	blobs   *counting
	trail   storetest.Trail
	catalog storetest.Catalog
	state   *state
	tiles   storetest.Tiles // the custody log
	signer  signer
	store   *evidence.Store
	log     bytes.Buffer
	config  fixity.Config
	f       *fixity.Fixity
}

// counting counts what is hashed, and fails for names it is told to.
type counting struct {
	storetest.Blobs
	reads map[string]int
	bad   map[string]int // how many more times reading a name fails
	down  bool
}

func (c *counting) Size(ctx context.Context, name string) (int64, error) {
	if c.down {
		return 0, errStorage
	}
	if c.bad[name] > 0 {
		c.bad[name]--
		return 0, errStorage
	}
	c.reads[name]++
	return c.Blobs.Size(ctx, name)
}

// state fails when it is told to.
type state struct {
	storetest.Tiles
	down  bool
	fails int
}

func (s *state) Head(ctx context.Context) ([]byte, string, error) {
	if s.down {
		return nil, "", errStorage
	}
	return s.Tiles.Head(ctx)
}

func (s *state) SwapHead(ctx context.Context, body []byte, revision string) error {
	if s.fails > 0 {
		s.fails--
		return errStorage
	}
	return s.Tiles.SwapHead(ctx, body, revision)
}

func newRig(t *testing.T, c fixity.Config) *rig {
	t.Helper()
	r := &rig{t: t, now: start, blobs: &counting{reads: map[string]int{}, bad: map[string]int{}}, state: &state{}}
	clock := func() time.Time { return r.now }
	r.blobs.Clock = clock
	var err error
	r.store, err = evidence.New(evidence.Config{
		Blobs: r.blobs, Keys: new(storetest.Keys), Vault: storetest.NewVault(), VaultHosts: []string{storetest.VaultHost}, Now: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.signer.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	c.Tenant, c.Now = tenant, clock
	r.config = c
	r.f = r.fixity()
	return r
}

// events is the trail as an appender.
func (r *rig) events() custody.Log {
	return custody.Log{Trail: &r.trail, Now: func() time.Time { return r.now }}
}

func (r *rig) fixity() *fixity.Fixity {
	return fixity.New(r.config, fixity.Stores{
		Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: r.events(), Objects: &r.blobs.Blobs, Catalog: &r.catalog, Calls: &r.catalog, State: r.state,
	}, r.logger())
}

func (r *rig) logger() *slog.Logger { return slog.New(slog.NewJSONHandler(&r.log, nil)) }

// put stores an object and returns what binds it.
func (r *rig) put(unit, object string, seq int, plain []byte) custody.Object {
	r.t.Helper()
	sealed, err := r.store.Seal(r.t.Context(), evidence.Ref{Tenant: tenant, Unit: unit, Object: object}, plain)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.store.Put(r.t.Context(), sealed); err != nil {
		r.t.Fatal(err)
	}
	return custody.Object{Unit: unit, Object: object, Seq: seq, SHA256: fmt.Sprintf("%x", sealed.Ciphertext), Commit: fmt.Sprintf("%x", sealed.Commit)}
}

func (r *rig) event(e custody.Event) {
	r.t.Helper()
	e.Tenant, e.System = tenant, "test"
	if _, err := r.events().Append(r.t.Context(), e); err != nil {
		r.t.Fatal(err)
	}
}

// batches seals n objects, one a record and a minute apart, and returns their names.
func (r *rig) batches(n int) []string {
	var out []string
	for i := range n {
		unit := fmt.Sprintf("unit-%d", i)
		o := r.put(unit, evidence.NewObjectID(), 0, bytes.Repeat([]byte{byte(i)}, 500))
		r.event(custody.Event{Action: custody.Sealed, Item: unit, Objects: []custody.Object{o}})
		out = append(out, name(o))
		r.now = r.now.Add(time.Minute)
	}
	return out
}

func name(o custody.Object) string { return string(tenant) + "/" + o.Unit + "/" + o.Object }

// flip changes a bit of what is stored.
func (r *rig) flip(name string) {
	r.t.Helper()
	size, err := r.blobs.Blobs.Size(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := r.blobs.ReadAt(r.t.Context(), name, 0, size)
	if err != nil {
		r.t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	r.blobs.Tamper(name, b)
}

// run lets some time pass and runs once.
func (r *rig) run() {
	r.t.Helper()
	r.now = r.now.Add(15 * time.Minute)
	r.sequence()
	if err := r.f.Run(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// signer signs checkpoints.
type signer struct{ key *ecdsa.PrivateKey }

func (s signer) SigningKey(context.Context) (string, *ecdsa.PublicKey, error) {
	return "https://vault.test/keys/sign/1", &s.key.PublicKey, nil
}

func (s signer) Sign(_ context.Context, _ string, digest [sha256.Size]byte) ([]byte, error) {
	return ecdsa.SignASN1(rand.Reader, s.key, digest[:])
}

// sequence brings the custody log up to date.
func (r *rig) sequence() {
	r.t.Helper()
	s := sequencer.New(sequencer.Config{Tenant: tenant, Now: func() time.Time { return r.now }}, &r.trail, &r.tiles, r.signer, slog.New(slog.DiscardHandler))
	if err := s.Run(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// alarms are the alarms in the trail, "unit/object: reason", and it checks that the log has each.
func (r *rig) alarms() []string {
	r.t.Helper()
	var out []string
	for _, e := range r.records(custody.FixityAlarm) {
		object := strings.TrimPrefix(e.Detail, "object=")
		out = append(out, e.Item+"/"+object+": "+e.Reason)
	}
	var logged []string
	for line := range bytes.Lines(r.log.Bytes()) {
		var l struct{ Level, Alarm, Unit, Object, Reason string }
		if err := json.Unmarshal(line, &l); err != nil {
			r.t.Fatal(err)
		}
		if l.Alarm != "" {
			if l.Alarm != "fixity" || l.Level != "ERROR" {
				r.t.Errorf("log line %s", line)
			}
			logged = append(logged, l.Unit+"/"+l.Object+": "+l.Reason)
		}
	}
	slices.Sort(out)
	slices.Sort(logged)
	if !slices.Equal(out, logged) {
		r.t.Errorf("in the trail %q, in the log %q", out, logged)
	}
	return slices.Compact(out)
}

func (r *rig) records(a custody.Action) []custody.Record {
	r.t.Helper()
	all, err := r.trail.Range(r.t.Context(), start.AddDate(0, -1, 0), start.AddDate(0, 11, 0), math.MaxInt32)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e custody.Record) bool { return e.Action != a })
}

func (r *rig) wantAlarms(want ...string) {
	r.t.Helper()
	slices.Sort(want)
	if got := r.alarms(); !slices.Equal(got, want) {
		r.t.Errorf("alarms %q, want %q", got, want)
	}
}

// short is "unit/object" of a blob's name.
func short(name string) string { return strings.TrimPrefix(name, string(tenant)+"/") }

// leg stores a recording of two packs with its manifest, and returns the manifest's and the packs' names.
func (r *rig) leg(call string) (manifest string, packs []string) {
	r.t.Helper()
	leg := conversation.LegOf(tenant, teams.CallID(call))
	m := conversation.Manifest{Format: conversation.ManifestFormat, Tenant: tenant, Leg: leg, Call: teams.CallID(call)}
	for n := range 2 {
		body := bytes.Repeat([]byte{byte(n + 1)}, 3000)
		object := conversation.PackObject(leg, n)
		p := string(tenant) + "/" + string(leg) + "/" + object
		if err := r.blobs.Create(r.t.Context(), p, body); err != nil {
			r.t.Fatal(err)
		}
		m.Packs = append(m.Packs, conversation.PackEntry{Object: object, Size: int64(len(body)), SHA256: fmt.Sprintf("%x", sha256.Sum256(body))})
		packs = append(packs, p)
	}
	plain, err := conversation.EncodeManifest(m)
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.put(string(leg), conversation.ManifestObject(leg), 0, plain)
	r.event(custody.Event{Action: custody.Sealed, Item: string(leg), Objects: []custody.Object{o}})
	r.now = r.now.Add(time.Minute)
	return name(o), packs
}

// digest is the SHA-256 of what is stored under a name now.
func (r *rig) digest(name string) string {
	r.t.Helper()
	size, err := r.blobs.Blobs.Size(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	b, err := r.blobs.ReadAt(r.t.Context(), name, 0, size)
	if err != nil {
		r.t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(b))
}
