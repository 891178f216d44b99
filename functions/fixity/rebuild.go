package fixity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// The catalog is derived, so it can be checked: what it should say of a conversation is made again
// from its evidence alone and compared with what it says. Evidence that it does not list
// is found by going through storage, rows without evidence by going through the catalog. A
// run does some units of it: once through all takes a run for every 40 units, or a day if they are few.

const (
	reasonDropped = "catalog-dropped" // evidence is stored that the catalog does not list
	reasonAltered = "catalog-altered" // the catalog says other than evidence
	reasonAdded   = "catalog-added"   // the catalog lists what was never stored
)

const (
	// rebuiltUnits is how many units a run makes again.
	rebuiltUnits = 40
	// rebuiltBy is when a run ends that: later than the stretch, which may take all of its time.
	rebuiltBy = longest + 3*time.Minute
	// rebuiltShards is how many stretches of names a run lists for it.
	rebuiltShards = 40
	// listed is how old evidence is before its conversation must stand in the listings: a
	// window may take as long.
	listed = 24 * time.Hour
	// promised is how long an object may stand in the catalog without being stored.
	promised = 7 * 24 * time.Hour
)

// base32hex are the letters with which keys of threads and legs begin.
const base32hex = "0123456789abcdefghijklmnopqrstuv"

// shards cuts the names of units into stretches that are small and list no unit twice: by two letters, and those of
// legs by the two after "leg-".
var shards = func() []string {
	var out []string
	two := func(lead string, skip string) {
		for _, a := range base32hex {
			for _, b := range base32hex {
				if s := lead + string(a) + string(b); s != skip {
					out = append(out, s)
				}
			}
		}
	}
	two("", "le")
	for _, c := range base32hex {
		if c != 'g' {
			out = append(out, "le"+string(c))
			continue
		}
		for _, d := range base32hex {
			out = append(out, "leg"+string(d))
		}
	}
	two("leg-", "")
	return out
}()

// place is where the going through storage stands.
type place struct {
	Shard int    `json:"shard"`
	After string `json:"after,omitempty"` // the last unit of the shard that was made again
}

// rebuild makes the next units again, and compares them.
func (r *run) rebuild(ctx context.Context) error {
	p, units := &r.state.Rebuilt, 0
	for range rebuiltShards {
		if p.Shard >= len(shards) {
			*p = place{}
		}
		lead := string(r.c.Tenant) + "/"
		objects, err := r.s.Objects.List(ctx, lead+shards[p.Shard])
		if err != nil {
			return err
		}
		byUnit := map[string][]evidence.TailInfo{}
		for _, o := range objects {
			unit, object, ok := strings.Cut(strings.TrimPrefix(o.Name, lead), "/")
			if ok && unit > p.After && !evidence.IsEscrow(object) {
				o.Name = object
				byUnit[unit] = append(byUnit[unit], o)
			}
		}
		for _, unit := range sorted(byUnit) {
			if units++; units > rebuiltUnits || r.c.Now().Sub(r.start) >= rebuiltBy {
				return nil
			}
			if err := r.compare(ctx, unit, byUnit[unit]); err != nil {
				return err
			}
			p.After = unit
		}
		*p = place{Shard: p.Shard + 1}
	}
	return nil
}

func sorted[T any](m map[string]T) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// compare makes one unit again from what is stored of it. What cannot be opened is no matter of the
// catalog: the round names it.
func (r *run) compare(ctx context.Context, unit string, stored []evidence.TailInfo) error {
	stored = slices.DeleteFunc(stored, func(o evidence.TailInfo) bool { return o.StoredAt.After(r.start.Add(-grace)) })
	var err error
	if leg, bad := conversation.ParseLegID(unit); bad == nil {
		err = r.compareLeg(ctx, leg, stored)
	} else if id, bad := conversation.ParseID(unit); bad == nil && len(stored) > 0 {
		err = r.compareChat(ctx, id, stored)
	}
	if errors.Is(err, evidence.ErrCorrupt) || errors.Is(err, evidence.ErrNotFound) || errors.Is(err, evidence.ErrFormat) {
		r.log.WarnContext(ctx, "unit cannot be made again", slog.String("unit", unit), slog.String("reason", err.Error()))
		return nil
	}
	return err
}

// compareChat compares a chat's slice with the batches that are stored of it.
func (r *run) compareChat(ctx context.Context, id conversation.ID, stored []evidence.TailInfo) error {
	slice, err := r.s.Catalog.Slice(ctx, id)
	if err != nil {
		return err
	}
	if d := slice.Conversation.Disposed; d != nil {
		return r.buried(ctx, string(id), *d)
	}
	batches := map[string]batch{}
	for _, o := range stored {
		b, err := r.batch(ctx, string(id), o.Name)
		if err != nil {
			return err
		}
		batches[o.Name] = b
		at := slices.IndexFunc(slice.Objects, func(c conversation.Object) bool { return c.Name == o.Name })
		reason := ""
		switch {
		case at < 0:
			reason = reasonDropped
		case !b.listedAs(slice.Objects[at]):
			reason = reasonAltered
		}
		if reason != "" {
			if err := r.alarm(ctx, string(id), o.Name, reason); err != nil {
				return err
			}
		}
	}
	if slice.Revision == "" {
		return nil // each of its objects was named
	}
	if !sameFacts(slice, batches) {
		return r.alarm(ctx, string(id), "", reasonAltered)
	}
	if err := r.compareRegister(ctx, id, batches); err != nil {
		return err
	}
	return r.compareListings(ctx, slice.Conversation, stored)
}

// batch is what a stored batch says, or the part of a file.
type batch struct {
	header   conversation.BatchHeader
	messages []conversation.Message
	versions []conversation.Version
	file     *conversation.FileHeader
	size     int64 // of the part's bytes of the file
}

func (r *run) batch(ctx context.Context, unit, object string) (batch, error) {
	var b batch
	o, err := r.open(ctx, unit, object)
	if err != nil {
		return b, err
	}
	isFile, err := startsAsFile(o)
	if err != nil {
		return b, err
	}
	if isFile {
		h, at, err := conversation.ReadFileHeader(o, o.Size())
		if err != nil {
			return b, fmt.Errorf("%w: %w", evidence.ErrFormat, err)
		}
		b.file, b.size = &h, o.Size()-at
		return b, nil
	}
	plain, err := o.ReadAll(maxBatch)
	if err != nil {
		return b, err
	}
	header, raw, err := conversation.DecodeBatch(plain)
	if err != nil {
		return b, fmt.Errorf("%w: %w", evidence.ErrFormat, err)
	}
	b.header = header
	for _, m := range raw {
		msg := conversation.ReadMessage(m, header.Custodian)
		b.messages = append(b.messages, msg)
		b.versions = append(b.versions, conversation.Version{VersionKey: msg.VersionKey, Sent: msg.Sent, SHA256: sha256.Sum256(m)})
	}
	return b, nil
}

// sameFacts makes the facts of a conversation again from its batches, in the order of their
// numbers. It can only if every object that was ever promised is stored.
func sameFacts(s conversation.Slice, batches map[string]batch) bool {
	have := s.Conversation
	if have.Objects != len(batches) || len(s.Objects) != len(batches) {
		return len(s.Objects) <= have.Objects || len(batches) == 0
	}
	objects := slices.Clone(s.Objects)
	slices.SortFunc(objects, func(a, b conversation.Object) int { return a.Seq - b.Seq })
	var want conversation.Conversation
	for _, o := range objects {
		b, ok := batches[o.Name]
		if !ok {
			return true // said already
		}
		if b.file == nil { // files change the number of objects alone
			want = want.With(b.header, b.messages)
		}
	}
	custodians := slices.Clone(want.Custodians)
	for _, rc := range s.Receipts {
		custodians = append(custodians, rc.Custodian)
	}
	for _, c := range have.Custodians {
		if !slices.Contains(custodians, c) {
			return false
		}
	}
	for _, c := range want.Custodians {
		if !slices.Contains(have.Custodians, c) {
			return false
		}
	}
	return have.ID == want.ID && have.Thread == want.Thread && have.Kind == want.Kind && have.Modality == want.Modality &&
		have.Start.Equal(want.Start) && have.First.Equal(want.First) && have.Last.Equal(want.Last) && have.Versions == want.Versions &&
		slices.Equal(have.Participants, want.Participants)
}

// compareListings checks that a conversation is found by its time and by its custodians.
func (r *run) compareListings(ctx context.Context, c conversation.Conversation, stored []evidence.TailInfo) error {
	if slices.ContainsFunc(stored, func(o evidence.TailInfo) bool { return o.StoredAt.After(r.start.Add(-listed)) }) {
		return nil
	}
	from, to := c.Start, c.Start.Add(time.Millisecond)
	found, err := lists(c.ID, func(p conversation.PageRequest) (conversation.Page, error) {
		return r.s.Catalog.ByTime(ctx, from, to, p)
	})
	if err != nil {
		return err
	}
	for _, person := range c.Custodians {
		if !found {
			break
		}
		found, err = lists(c.ID, func(p conversation.PageRequest) (conversation.Page, error) {
			return r.s.Catalog.ByPerson(ctx, person, from, to, p)
		})
		if err != nil {
			return err
		}
	}
	if !found {
		return r.alarm(ctx, string(c.ID), "", reasonDropped)
	}
	return nil
}

// lists reports whether a listing has a conversation.
func lists(id conversation.ID, list func(conversation.PageRequest) (conversation.Page, error)) (bool, error) {
	for after := (conversation.Position{}); ; {
		page, err := list(conversation.PageRequest{After: after})
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(page.Conversations, func(c conversation.Conversation) bool { return c.ID == id }) {
			return true, nil
		}
		if !page.More {
			return false, nil
		}
		after = page.Conversations[len(page.Conversations)-1].Position()
	}
}

// compareLeg compares a leg in the register with its manifest.
func (r *run) compareLeg(ctx context.Context, id conversation.LegID, stored []evidence.TailInfo) error {
	object := conversation.ManifestObject(id)
	if !slices.ContainsFunc(stored, func(o evidence.TailInfo) bool { return o.Name == object }) {
		return nil // not sealed yet
	}
	m, err := r.manifest(ctx, target{object: custody.Object{Unit: string(id), Object: object}})
	if err != nil {
		return err
	}
	call, err := r.s.Calls.Call(ctx, conversation.CallKeyOf(r.c.Tenant, m.Chain))
	if err != nil {
		return err
	}
	if d := call.Conversation.Disposed; d != nil {
		return r.buried(ctx, string(id), *d)
	}
	leg, ok := call.Leg(id)
	from, to := m.Span()
	switch {
	case !ok:
		return r.alarm(ctx, string(id), object, reasonDropped)
	case m.Leg != id, leg.State != conversation.LegSealed, leg.Call != m.Call, leg.Manifest != object, leg.Outcome != m.Outcome, leg.Recorder != m.Recorder,
		!leg.Epoch.Equal(m.Epoch), leg.Bundles != len(m.Bundles), leg.Packs != len(m.Packs), !leg.From.Equal(from), !leg.To.Equal(to), leg.Lost != m.Lost(),
		m.Invite != nil && !recordedBy(leg, m.Invite, r.c.Tenant):
		return r.alarm(ctx, string(id), object, reasonAltered)
	}
	return r.compareListings(ctx, call.Conversation, stored)
}

// recordedBy reports whether a leg is its invite's recorded user's.
func recordedBy(leg conversation.Leg, invite *teams.Invite, tenant teams.TenantID) bool {
	p, ok := invite.Recorded.Person(tenant)
	return !ok || leg.Recorded == p
}

// buried checks that a tombstone has the custody event that it names.
func (r *run) buried(ctx context.Context, unit string, d conversation.Disposed) error {
	at, err := custody.TimeOf(d.Event)
	if err != nil {
		return r.alarm(ctx, unit, "", reasonAltered)
	}
	found := false
	_, err = r.walk(ctx, custody.IDsFrom(at), at.Add(time.Microsecond), func(rec custody.Record) (bool, error) {
		found = rec.ID == d.Event && (rec.Action == custody.Dispose || rec.Action == custody.Erase || rec.Action == custody.Disposed)
		return !found, nil
	})
	if err == nil && !found {
		err = r.alarm(ctx, unit, "", reasonAltered)
	}
	return err
}

// vouched checks that a conversation that the catalog lists has evidence.
func (r *run) vouched(ctx context.Context, c conversation.Conversation, slice conversation.Slice) error {
	if slice.Revision == "" || len(slice.Objects) == 0 {
		return r.alarm(ctx, string(c.ID), "", reasonAdded)
	}
	for _, o := range slice.Objects {
		if o.ClaimedAt.After(r.start.Add(-promised)) {
			continue
		}
		stored, err := r.s.Evidence.Exists(ctx, r.ref(string(c.ID), o.Name))
		if err != nil {
			return err
		}
		if stored {
			continue
		}
		claimed := o.ClaimedAt.UTC().Truncate(24 * time.Hour)
		sealed, err := r.isSealed(ctx, string(c.ID), o, claimed, r.start)
		if err == nil && !sealed { // one that was sealed is missing, which the round says
			err = r.alarm(ctx, string(c.ID), o.Name, reasonAdded)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// vouchedCall checks that the legs of a call that the catalog lists are stored.
func (r *run) vouchedCall(ctx context.Context, c conversation.Conversation) error {
	call, err := r.s.Calls.Call(ctx, c.ID.Thread())
	if err != nil {
		return err
	}
	if call.Revision == "" || len(call.Legs) == 0 {
		return r.alarm(ctx, string(c.ID), "", reasonAdded)
	}
	for _, l := range call.Legs {
		if l.State != conversation.LegSealed {
			continue
		}
		manifest := conversation.ManifestObject(l.Leg)
		stored, err := r.s.Evidence.Exists(ctx, r.ref(string(l.Leg), manifest))
		if err == nil && !stored { // one that was sealed is missing, which the round says
			stored, err = r.isSealed(ctx, string(l.Leg), conversation.Object{Name: manifest}, l.Started.UTC().Truncate(24*time.Hour), r.start)
		}
		if err == nil && !stored {
			err = r.alarm(ctx, string(l.Leg), l.Manifest, reasonAdded)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
