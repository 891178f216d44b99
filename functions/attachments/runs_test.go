package attachments_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/functions/attachments"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
)

func TestAProcessMayDieAtAnyStepAndNothingIsTwice(t *testing.T) {
	want := noise(2500)
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			r := newRig(t)
			r.shelve(want)
			r.say("1", "1", "", link)
			body := r.queue.take()[0]
			m := &mortality{dieAt: n, after: after}
			err := r.process(m).Handle(t.Context(), body)
			if !m.dead {
				if n < 10 {
					t.Fatalf("a run takes %d calls alone", n)
				}
				break
			}
			_ = err // redelivered or put back: both are tried now
			r.queue.sent = append(r.queue.sent, body)
			for range 3 {
				r.handle()
			}
			a := r.only()
			if _, got := r.file(a); a.State != conversation.AttachmentFetched || !bytes.Equal(got, want) {
				t.Errorf("died at %d (after %t): %+v", n, after, a)
			}
			parts := r.parts()
			for _, o := range parts {
				r.open(o.Name) // whatever is promised is there
			}
			if len(parts) != 3 {
				t.Errorf("died at %d (after %t): %d objects for 3 parts", n, after, len(parts))
			}
		}
	}
}

func TestARunWhoseTimeIsUpIsGoneOnWith(t *testing.T) {
	for _, ignores := range []bool{false, true} { // the source may ignore Range
		r := newRig(t)
		want := noise(10_500)
		r.shelve(want)
		r.shelf.ignores = ignores
		ctx, cancel := context.WithCancel(t.Context())
		r.shelf.read = func(b []byte, from int64) io.Reader {
			return io.MultiReader(bytes.NewReader(b[from:4321]), stopping{cancel}, bytes.NewReader(b[4321:]))
		}
		r.say("1", "1", "", link)
		r.must(r.process(&mortality{}).Handle(ctx, r.queue.take()[0]))
		if len(r.queue.sent) != 1 || len(r.results()) != 0 {
			t.Fatalf("%d put back, %d results", len(r.queue.sent), len(r.results()))
		}
		r.shelf.read = nil
		r.handle()
		if _, got := r.file(r.only()); !bytes.Equal(got, want) {
			t.Error("the file is another")
		}
		if !slices.Equal(r.shelf.asked, []int64{0, 4000}) || len(r.parts()) != 11 {
			t.Errorf("asked from %v, %d parts", r.shelf.asked, len(r.parts()))
		}
	}
}

// stopping ends a run's time.
type stopping struct{ cancel context.CancelFunc }

func (s stopping) Read([]byte) (int, error) { s.cancel(); return 0, io.EOF }

func TestAFileThatChangesBetweenTwoRunsIsBegunAnew(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(5000))
	ctx, cancel := context.WithCancel(t.Context())
	r.shelf.read = func(b []byte, from int64) io.Reader {
		return io.MultiReader(bytes.NewReader(b[from:2500]), stopping{cancel}, bytes.NewReader(b[2500:]))
	}
	r.say("1", "1", "", link)
	r.must(r.process(&mortality{}).Handle(ctx, r.queue.take()[0]))
	want := bytes.Repeat([]byte("other"), 600)
	r.shelve(want)
	r.shelf.item.CTag, r.shelf.read = "c2", nil
	r.handle()
	if _, got := r.file(r.only()); !bytes.Equal(got, want) || !slices.Equal(r.shelf.asked, []int64{0, 0}) {
		t.Errorf("%d bytes, asked from %v", len(got), r.shelf.asked)
	}
}

// What was promised of a file and never stored must not hold up its conversation for ever.
func TestAPromiseThatNobodyKeepsIsVoidInTheLog(t *testing.T) {
	for name, next := range map[string]func(r *rig){
		"other bytes": func(r *rig) { r.shelve(bytes.Repeat([]byte("new"), 300)); r.shelf.item.CTag = "c2" },
		"a gap":       func(r *rig) { r.shelf.fail = &msgraph.Error{Status: http.StatusNotFound} },
	} {
		r := newRig(t)
		r.shelve(noise(800))
		r.say("1", "1", "", link)
		body := r.queue.take()[0]
		for n := 1; len(r.parts()) == 0; n++ { // dies when it has promised, and not stored
			_ = r.process(&mortality{dieAt: n, after: true}).Handle(t.Context(), body)
		}
		promised := r.parts()[0]
		if ok, err := r.store.Exists(t.Context(), evidence.Ref{Tenant: tenant, Unit: string(r.id()), Object: promised.Name}); err != nil || ok {
			t.Fatalf("%s: it is stored: %v", name, err)
		}
		next(r)
		r.queue.take()
		r.queue.sent = append(r.queue.sent, body)
		r.handle()
		if slices.ContainsFunc(r.parts(), func(o conversation.Object) bool { return o.Name == promised.Name }) {
			t.Errorf("%s: the promise stands", name)
		}
		records, err := r.trail.Range(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), 100)
		r.must(err)
		void := custody.Object{Unit: string(r.id()), Object: promised.Name, Seq: promised.Seq, Void: true}
		if !slices.ContainsFunc(records, func(rec custody.Record) bool { return slices.Contains(rec.Objects, void) }) {
			t.Errorf("%s: number %d is not void in the log", name, promised.Seq)
		}
		if len(r.results()) != 1 {
			t.Errorf("%s: %d results", name, len(r.results()))
		}
	}
}

func TestRunsThatMeetMakeOneFile(t *testing.T) {
	r := newRig(t)
	want := noise(2500)
	r.shelve(want)
	r.say("1", "1", "", link)
	body := r.queue.take()[0]
	var group errgroup.Group
	for range 6 {
		group.Go(func() error { return r.process(&mortality{}).Handle(t.Context(), body) })
	}
	r.must(group.Wait())
	for range attachments.MaxAttempts { // those that met are put back
		r.handle()
	}
	if _, got := r.file(r.only()); !bytes.Equal(got, want) {
		t.Error("the file is another")
	}
	whole := 0
	for _, o := range r.parts() {
		r.open(o.Name)
		if o.File.Whole != "" {
			whole++
		}
	}
	if whole != 1 || len(r.parts()) != 3 {
		t.Errorf("%d objects, %d of them last parts", len(r.parts()), whole)
	}
}
