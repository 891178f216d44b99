package fixity_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/fixity"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/storetest"
	"steno/shared/teams"
)

// tampered is a catalog whose rows somebody changed behind its back.
type tampered struct {
	*storetest.Catalog
	slice  func(s *conversation.Slice)
	call   func(c *conversation.Call)
	time   func(p *conversation.Page)
	person func(p *conversation.Page)
	files  func(list []conversation.Attachment) []conversation.Attachment
}

func (c tampered) Attachments(ctx context.Context, id conversation.ID) ([]conversation.Attachment, error) {
	list, err := c.Catalog.Attachments(ctx, id)
	if c.files != nil {
		list = c.files(list)
	}
	return list, err
}

func (c tampered) Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error) {
	s, err := c.Catalog.Slice(ctx, id)
	if c.slice != nil {
		c.slice(&s)
	}
	return s, err
}

func (c tampered) Call(ctx context.Context, key conversation.ThreadKey) (conversation.Call, error) {
	call, err := c.Catalog.Call(ctx, key)
	if c.call != nil {
		c.call(&call)
	}
	return call, err
}

func (c tampered) ByTime(ctx context.Context, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	page, err := c.Catalog.ByTime(ctx, from, to, p)
	if c.time != nil {
		c.time(&page)
	}
	return page, err
}

func (c tampered) ByPerson(ctx context.Context, who teams.PersonID, from, to time.Time, p conversation.PageRequest) (conversation.Page, error) {
	page, err := c.Catalog.ByPerson(ctx, who, from, to, p)
	if c.person != nil {
		c.person(&page)
	}
	return page, err
}

// registered stores a recording and registers it as finalize does.
func (r *rig) registered(call teams.CallID, chain teams.ChainID) conversation.LegID {
	r.t.Helper()
	leg := conversation.LegOf(tenant, call)
	started := r.now.Truncate(time.Millisecond)
	m := conversation.Manifest{Format: conversation.ManifestFormat, Tenant: tenant, Leg: leg, Call: call, Chain: chain, Recorder: "bot-1", Outcome: conversation.OutcomeRecorded, Epoch: started}
	plain, err := conversation.EncodeManifest(m)
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.put(string(leg), conversation.ManifestObject(leg), 0, plain)
	r.event(custody.Event{Action: custody.Sealed, Item: string(leg), Objects: []custody.Object{o}})
	key := conversation.CallKeyOf(tenant, chain)
	was, err := r.catalog.Call(r.t.Context(), key)
	if err != nil {
		r.t.Fatal(err)
	}
	conv := conversation.Conversation{
		ID: conversation.IDOf(key, started), Kind: teams.ThreadCall, Modality: conversation.Voice, Start: started, First: started, Last: started,
		Custodians: []teams.PersonID{alice}, Call: &conversation.CallFacts{Chain: chain, Legs: 1},
	}
	row := conversation.Leg{
		Leg: leg, Call: call, Recorder: "bot-1", Recorded: alice, State: conversation.LegSealed, Outcome: conversation.OutcomeRecorded,
		Started: started, Epoch: started, Manifest: o.Object,
	}
	if err := r.catalog.SaveCall(r.t.Context(), was, conv, row); err != nil {
		r.t.Fatal(err)
	}
	if err := r.catalog.ListCall(r.t.Context(), conv); err != nil {
		r.t.Fatal(err)
	}
	r.now = r.now.Add(time.Second)
	return leg
}

func TestEachRowOfTheCatalogThatWasDroppedAlteredOrPutInIsNamed(t *testing.T) {
	// What the rig holds: two objects of one chat on a day, one of another, and a call.
	var chat, other custody.Object
	var leg conversation.LegID
	hit := func(s *conversation.Slice) bool { return string(s.Conversation.ID) == chat.Unit }
	foreign := conversation.Conversation{
		ID: conversation.IDOf(conversation.KeyOf(tenant, "19:planted@thread.v2"), start), Kind: teams.ThreadGroup, Modality: conversation.Chat, Start: start.Add(time.Minute),
	}
	planted := func(c conversation.Conversation) func(p *conversation.Page) {
		return func(p *conversation.Page) { p.Conversations = append(p.Conversations, c) }
	}
	without := func(p *conversation.Page) {
		p.Conversations = slices.DeleteFunc(slices.Clone(p.Conversations), func(c conversation.Conversation) bool { return string(c.ID) == chat.Unit })
	}
	inSlice := func(do func(s *conversation.Slice)) tampered {
		return tampered{slice: func(s *conversation.Slice) {
			if hit(s) {
				s.Objects = slices.Clone(s.Objects)
				do(s)
			}
		}}
	}
	inLeg := func(do func(l *conversation.Leg)) tampered {
		return tampered{call: func(c *conversation.Call) {
			c.Legs = slices.Clone(c.Legs)
			for i := range c.Legs {
				do(&c.Legs[i])
			}
		}}
	}
	call := foreign
	call.Call = &conversation.CallFacts{Chain: "nowhere"}
	for what, c := range map[string]struct {
		with tampered
		want func() string
	}{
		"intact":            {tampered{}, nil},
		"an object dropped": {inSlice(func(s *conversation.Slice) { s.Objects = s.Objects[1:] }), func() string { return short(name(chat)) + ": catalog-dropped" }},
		"a slice dropped":   {inSlice(func(s *conversation.Slice) { *s = conversation.Slice{} }), func() string { return short(name(chat)) + ": catalog-dropped" }},
		"a digest altered":  {inSlice(func(s *conversation.Slice) { s.Objects[0].Versions = altered(s.Objects[0].Versions) }), func() string { return short(name(chat)) + ": catalog-altered" }},
		"a version dropped": {inSlice(func(s *conversation.Slice) { s.Objects[0].Versions = nil }), func() string { return short(name(chat)) + ": catalog-altered" }},
		"custodian altered": {inSlice(func(s *conversation.Slice) { s.Objects[0].Custodian = "somebody" }), func() string { return short(name(chat)) + ": catalog-altered" }},
		"facts altered":     {inSlice(func(s *conversation.Slice) { s.Conversation.Last = start.AddDate(1, 0, 0) }), func() string { return chat.Unit + "/: catalog-altered" }},
		"thread altered":    {inSlice(func(s *conversation.Slice) { s.Conversation.Thread = "19:x@thread.v2" }), func() string { return chat.Unit + "/: catalog-altered" }},
		"author dropped":    {inSlice(func(s *conversation.Slice) { s.Conversation.Participants = nil }), func() string { return chat.Unit + "/: catalog-altered" }},
		"custodian put in": {inSlice(func(s *conversation.Slice) {
			s.Conversation.Custodians = append([]teams.PersonID{"x"}, s.Conversation.Custodians...)
		}), func() string { return chat.Unit + "/: catalog-altered" }},
		"custodian dropped": {inSlice(func(s *conversation.Slice) { s.Conversation.Custodians = nil }), func() string { return chat.Unit + "/: catalog-altered" }},
		"a forged tombstone": {inSlice(func(s *conversation.Slice) {
			s.Conversation.Disposed = &conversation.Disposed{Event: custody.IDsFrom(start) + "-0000000000000001"}
		}), func() string { return chat.Unit + "/: catalog-altered" }},
		"an object put in": {inSlice(func(s *conversation.Slice) {
			o := s.Objects[0]
			o.Name, o.Seq = "00000000000000000000000000000001", 7
			s.Objects = append(s.Objects, o)
		}), func() string { return chat.Unit + "/00000000000000000000000000000001: catalog-added" }},
		"not listed by time":        {tampered{time: without}, func() string { return chat.Unit + "/: catalog-dropped" }},
		"not listed by person":      {tampered{person: without}, func() string { return chat.Unit + "/: catalog-dropped" }},
		"a conversation put in":     {tampered{time: planted(foreign)}, func() string { return string(foreign.ID) + "/: catalog-added" }},
		"a call put in":             {tampered{time: planted(call)}, func() string { return string(foreign.ID) + "/: catalog-added" }},
		"a leg dropped":             {tampered{call: func(c *conversation.Call) { c.Legs = nil }}, func() string { return string(leg) + "/" + conversation.ManifestObject(leg) + ": catalog-dropped" }},
		"a leg's length altered":    {inLeg(func(l *conversation.Leg) { l.Bundles++ }), func() string { return string(leg) + "/" + conversation.ManifestObject(leg) + ": catalog-altered" }},
		"a leg's outcome altered":   {inLeg(func(l *conversation.Leg) { l.Outcome = conversation.OutcomeEmpty }), func() string { return string(leg) + "/" + conversation.ManifestObject(leg) + ": catalog-altered" }},
		"a leg's manifest replaced": {inLeg(func(l *conversation.Leg) { l.Manifest = "00000000000000000000000000000001" }), func() string { return string(leg) + "/" + conversation.ManifestObject(leg) + ": catalog-altered" }},
		"a leg put in": {tampered{call: func(c *conversation.Call) {
			l := c.Legs[0]
			l.Leg = conversation.LegOf(tenant, "never")
			c.Legs = append(slices.Clone(c.Legs), l)
		}}, func() string {
			return string(conversation.LegOf(tenant, "never")) + "/" + conversation.ManifestObject(leg) + ": catalog-added"
		}},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t, fixity.Config{})
			chat = r.claimed("19:first@thread.v2", true, asIs)
			other = r.claimed("19:second@thread.v2", true, asIs)
			leg = r.registered("call-1", "chain-1")
			for _, unit := range []string{chat.Unit, string(leg)} { // copies of keys are no objects of a catalog
				if err := r.blobs.Create(t.Context(), string(tenant)+"/"+unit+"/escrow-"+strings.Repeat("0", 32), []byte("{}")); err != nil {
					t.Fatal(err)
				}
			}
			r.now = r.now.Add(9 * 24 * time.Hour)
			c.with.Catalog = &r.catalog
			f := fixity.New(r.config, fixity.Stores{
				Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: r.events(), Objects: &r.blobs.Blobs, Catalog: c.with, Calls: c.with, State: r.state,
			}, r.logger())
			for range 60 {
				r.now = r.now.Add(15 * time.Minute)
				r.sequence()
				if err := f.Run(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			got := r.alarms()
			if c.want == nil {
				if len(got) != 0 {
					t.Errorf("alarms %q", got)
				}
				return
			}
			if !slices.Contains(got, c.want()) {
				t.Errorf("alarms %q, want %q", got, c.want())
			}
			for _, a := range got {
				if strings.HasPrefix(a, other.Unit) {
					t.Errorf("%q, of which nothing was changed", a)
				}
			}
		})
	}
}

func altered(v []conversation.Version) []conversation.Version {
	v = slices.Clone(v)
	v[0].SHA256[0] ^= 1
	return v
}
