package fixity_test

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"steno/functions/fixity"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/storetest"
)

// attached puts a file of three parts into the conversation of a batch, and returns what binds them.
func (r *rig) attached(batch custody.Object, source string) []custody.Object {
	r.t.Helper()
	id := conversation.ID(batch.Unit)
	s, err := r.catalog.Slice(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	_, bound, err := storetest.PutFile(r.t.Context(), r.store, &r.catalog, conversation.FileHeader{
		Tenant: tenant, Conversation: id, Thread: s.Conversation.Thread, Custodian: alice, Message: "1", Sent: id.Day(), Kind: conversation.KindFile, Name: "x.pdf", Source: source, Rule: conversation.RuleCurrent,
	}, 500, bytes.Repeat([]byte{7}, 1200), r.now)
	if err != nil {
		r.t.Fatal(err)
	}
	r.now = r.now.Add(time.Second)
	return bound
}

func TestFilesAreReadAgainAndSealedLateLikeBatches(t *testing.T) {
	r := newRig(t, fixity.Config{})
	batch := r.claimed("19:first@thread.v2", true, asIs)
	r.event(custody.Event{Action: custody.Sealed, Item: batch.Unit, Objects: []custody.Object{batch}})
	sealed := r.attached(batch, "https://contoso.sharepoint.com/sealed.pdf")
	r.event(custody.Event{Action: custody.Sealed, Item: batch.Unit, Objects: sealed})
	late := r.attached(batch, "https://contoso.sharepoint.com/late.pdf") // whoever fetched it died before it sealed it
	for range 10 {
		r.run()
	}
	r.wantAlarms()
	got := r.seals()
	for _, o := range late {
		if !slices.Contains(got, o) {
			t.Errorf("%+v is not sealed", o)
		}
	}
	if len(got) != 7 {
		t.Errorf("%d objects are sealed, want 7 once each", len(got))
	}
	for _, o := range append(sealed, late...) {
		if r.blobs.reads[name(o)] == 0 {
			t.Errorf("part %d was never read again", o.Seq)
		}
	}
	r.flip(name(sealed[1]))
	r.now = r.now.Add(20 * 24 * time.Hour)
	for range 10 {
		r.run()
	}
	if got := r.alarms(); !slices.Contains(got, short(name(sealed[1]))+": changed") {
		t.Errorf("alarms %q", got)
	}
}

func TestAPartThatIsNotWhatTheCatalogSaysIsAnAlarmAndNotSealed(t *testing.T) {
	r := newRig(t, fixity.Config{})
	batch := r.claimed("19:first@thread.v2", true, asIs)
	r.event(custody.Event{Action: custody.Sealed, Item: batch.Unit, Objects: []custody.Object{batch}})
	parts := r.attached(batch, "https://contoso.sharepoint.com/x.pdf")
	c := tampered{Catalog: &r.catalog, slice: func(s *conversation.Slice) {
		s.Objects = slices.Clone(s.Objects)
		for i, o := range s.Objects {
			if o.Name == parts[1].Object {
				f := *o.File
				f.SHA256 = "00"
				s.Objects[i].File = &f
			}
		}
	}}
	f := fixity.New(r.config, fixity.Stores{
		Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: r.events(), Objects: &r.blobs.Blobs, Catalog: c, Calls: c, State: r.state,
	}, r.logger())
	for range 6 {
		r.now = r.now.Add(15 * time.Minute)
		r.sequence()
		if err := f.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := r.alarms(); !slices.Equal(got, []string{short(name(parts[1])) + ": not-sealable"}) {
		t.Errorf("alarms %q", got)
	}
	if got := r.seals(); slices.Contains(got, parts[1]) || !slices.Contains(got, parts[0]) || !slices.Contains(got, parts[2]) {
		t.Errorf("sealed %+v", got)
	}
}

func TestEachRowOfAFileThatWasDroppedOrAlteredIsNamed(t *testing.T) {
	inFile := func(do func(f *conversation.PartOf)) func(o *conversation.Object) bool {
		return func(o *conversation.Object) bool { f := *o.File; do(&f); o.File = &f; return true }
	}
	inRow := func(do func(a *conversation.Attachment)) func([]conversation.Attachment) []conversation.Attachment {
		return func(list []conversation.Attachment) []conversation.Attachment { do(&list[0]); return list }
	}
	stays := func(*conversation.Object) bool { return true }
	for what, c := range map[string]struct {
		change func(o *conversation.Object) (stays bool)
		files  func([]conversation.Attachment) []conversation.Attachment
		want   string
	}{
		"intact":               {stays, nil, ""},
		"a part dropped":       {func(*conversation.Object) bool { return false }, nil, "catalog-dropped"},
		"another attachment":   {inFile(func(f *conversation.PartOf) { f.Attachment = "x" }), nil, "catalog-altered"},
		"another number":       {inFile(func(f *conversation.PartOf) { f.Part++ }), nil, "catalog-altered"},
		"another size":         {inFile(func(f *conversation.PartOf) { f.Size++ }), nil, "catalog-altered"},
		"another whole":        {inFile(func(f *conversation.PartOf) { f.Whole = "00" }), nil, "catalog-altered"},
		"a batch in its stead": {func(o *conversation.Object) bool { o.File = nil; return true }, nil, "catalog-altered"},
		"another custodian":    {func(o *conversation.Object) bool { o.Custodian = "x"; return true }, nil, "catalog-altered"},
		"a result dropped":     {stays, func([]conversation.Attachment) []conversation.Attachment { return nil }, "catalog-dropped"},
		"a gap in its stead":   {stays, inRow(func(a *conversation.Attachment) { a.State = conversation.AttachmentGap }), "catalog-dropped"},
		"another digest":       {stays, inRow(func(a *conversation.Attachment) { a.SHA256 = "00" }), "catalog-altered"},
		"another file's id":    {stays, inRow(func(a *conversation.Attachment) { a.ID = "x" }), "catalog-altered"},
		"another message's":    {stays, inRow(func(a *conversation.Attachment) { a.Message = "2" }), "catalog-altered"},
		"a kinder rule":        {stays, inRow(func(a *conversation.Attachment) { a.Rule = conversation.RuleAtSending }), "catalog-altered"},
	} {
		r := newRig(t, fixity.Config{})
		batch := r.claimed("19:first@thread.v2", true, asIs)
		parts := r.attached(batch, "https://contoso.sharepoint.com/x.pdf")
		r.event(custody.Event{Action: custody.Sealed, Item: batch.Unit, Objects: append(parts, batch)})
		with := tampered{Catalog: &r.catalog, files: c.files, slice: func(s *conversation.Slice) {
			s.Objects = slices.Clone(s.Objects)
			for i := range s.Objects {
				if s.Objects[i].Name == parts[2].Object && !c.change(&s.Objects[i]) {
					s.Objects = slices.Delete(s.Objects, i, i+1)
					break
				}
			}
		}}
		f := fixity.New(r.config, fixity.Stores{
			Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: r.events(), Objects: &r.blobs.Blobs, Catalog: with, Calls: with, State: r.state,
		}, r.logger())
		r.now = r.now.Add(2 * 24 * time.Hour)
		for range 60 {
			r.now = r.now.Add(15 * time.Minute)
			r.sequence()
			if err := f.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		got := r.alarms()
		if want := short(name(parts[2])) + ": " + c.want; c.want == "" && len(got) != 0 || c.want != "" && !slices.Contains(got, want) {
			t.Errorf("%s: alarms %q, want %q", what, got, want)
		}
	}
}
