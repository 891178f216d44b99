package attachments_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/attachments"
	"steno/functions/internal/funchost"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/msgraph"
	"steno/shared/teams"
)

// noise is n bytes that do not repeat.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b) // never fails
	return b
}

func TestAFileIsFetchedOnceWhoeverAsks(t *testing.T) {
	for _, size := range []int{0, 1, 999, 1000, 1001, 2000, 5500} {
		r := newRig(t)
		want := noise(size)
		r.shelve(want)
		r.say("1", "1", "<p>see</p>", link)
		first := r.queue.take()
		r.queue.sent = slices.Clone(first)
		r.handle()
		a := r.only()
		h, got := r.file(a)
		if !bytes.Equal(got, want) || a.State != conversation.AttachmentFetched || a.Rule != conversation.RuleCurrent || a.Name != "term sheet.pdf" || a.Parts != max(1, (size+999)/1000) {
			t.Errorf("%d bytes: %+v", size, a)
		}
		if h.Item == nil || h.Item.CTag != "c1" || h.Source != link || h.RequestID != "request" || h.Message != "1" || h.Rule != conversation.RuleCurrent {
			t.Errorf("%d bytes: header %+v", size, h)
		}
		objects, seals := len(r.parts()), r.events(custody.Sealed)
		r.queue.sent = slices.Clone(first) // the same message again
		r.handle()
		r.say("1", "1", "<p>see</p>", link) // a later pass
		r.say("1", "2", "<p>edited</p>", link)
		r.handle()
		if n := len(r.parts()); n != objects || r.events(custody.Sealed) != seals+1 { // that of the edit
			t.Errorf("%d bytes: %d objects became %d", size, objects, n)
		}
		if len(r.shelf.asked) != 1 {
			t.Errorf("%d bytes: asked for %d times", size, len(r.shelf.asked))
		}
	}
}

func TestWhatIsStoredIsBoundByTheLog(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(300_500)) // more parts than one event names
	r.say("1", "1", "", link)
	r.handle()
	records, err := r.trail.Range(t.Context(), time.Now().Add(-time.Hour), time.Now().Add(time.Hour), 100)
	r.must(err)
	bound := map[string]custody.Object{}
	for _, rec := range records {
		for _, o := range rec.Objects {
			bound[o.Object] = o
		}
	}
	seen := map[int]bool{}
	for _, o := range r.parts() {
		b := bound[o.Name]
		_, digest, err := r.store.Digest(t.Context(), evidence.Ref{Tenant: tenant, Unit: string(r.id()), Object: o.Name})
		r.must(err)
		if b.Unit != string(r.id()) || b.Seq != o.Seq || b.SHA256 != fmt.Sprintf("%x", digest) || b.Commit == "" || seen[o.Seq] {
			t.Fatalf("part %d is bound as %+v", o.File.Part, b)
		}
		seen[o.Seq] = true
	}
	if len(seen) != 301 {
		t.Errorf("%d parts", len(seen))
	}
}

func TestTheVersionOfWhenTheMessageWasSentIsFetched(t *testing.T) {
	version := func(id string, after time.Duration) msgraph.Version {
		return msgraph.Version{ID: id, Modified: sent.Add(after), Size: 3}
	}
	for _, c := range []struct {
		name     string
		modified time.Duration
		versions []msgraph.Version
		want     string // which bytes
		rule     conversation.VersionRule
	}{
		{"unchanged", -time.Hour, nil, "now", conversation.RuleCurrent},
		{"changed in the very moment", 0, nil, "now", conversation.RuleCurrent},
		{"changed since", time.Hour, []msgraph.Version{version("3", time.Hour), version("2", -time.Minute), version("1", -time.Hour)}, "two", conversation.RuleAtSending},
		{"in any order", time.Hour, []msgraph.Version{version("1", -time.Hour), version("2", -time.Minute), version("3", time.Hour)}, "two", conversation.RuleAtSending},
		{"history cut off", time.Hour, []msgraph.Version{version("3", time.Hour)}, "now", conversation.RuleLater},
		{"no history", time.Hour, nil, "now", conversation.RuleLater},
	} {
		r := newRig(t)
		r.shelve([]byte("now"))
		r.shelf.item.Modified, r.shelf.versions = sent.Add(c.modified), c.versions
		r.shelf.bytes["2"], r.shelf.bytes["1"] = []byte("two"), []byte("one")
		r.say("1", "1", "", link)
		r.handle()
		a := r.only()
		if _, got := r.file(a); string(got) != c.want || a.Rule != c.rule {
			t.Errorf("%s: %q by rule %s, want %q by %s", c.name, got, a.Rule, c.want, c.rule)
		}
	}
}

func TestWhatCannotBeHadIsAGapWithItsReason(t *testing.T) {
	answer := func(status int, code string) error { return &msgraph.Error{Status: status, Code: code} }
	for name, c := range map[string]struct {
		source string
		fail   error
		want   conversation.GapReason
	}{
		"gone":              {link, answer(http.StatusNotFound, "itemNotFound"), conversation.GapGone},
		"forbidden":         {link, answer(http.StatusForbidden, "accessDenied"), conversation.GapForbidden},
		"locked":            {link, answer(http.StatusLocked, "resourceLocked"), conversation.GapProtected},
		"harmful":           {link, msgraph.ErrMalware, conversation.GapProtected},
		"folder":            {link, msgraph.ErrNoFile, conversation.GapNoFile},
		"led astray":        {link, fmt.Errorf("open: %w", msgraph.ErrForeignHost), conversation.GapForeignHost},
		"private address":   {link, fmt.Errorf("dial: %w", msgraph.ErrAddress), conversation.GapForeignHost},
		"another host":      {"https://evil.example/x.pdf", nil, conversation.GapForeignHost},
		"not an address":    {"file:///etc/passwd", nil, conversation.GapMalformed},
		"overlong":          {link + strings.Repeat("x", conversation.MaxSource), nil, conversation.GapMalformed},
		"bad request":       {link, answer(http.StatusBadRequest, "invalidRequest"), conversation.GapMalformed},
		"larger than is ok": {link, nil, conversation.GapTooLarge},
	} {
		r := newRig(t)
		r.shelf.fail = c.fail
		r.shelve(noise(3000))
		r.config.Largest = 2999
		r.say("1", "1", "", c.source)
		r.handle()
		a := r.only()
		if a.State != conversation.AttachmentGap || a.Reason != c.want || a.Name != "term sheet.pdf" {
			t.Errorf("%s: %+v", name, a)
		}
		if n := r.events(custody.AttachmentGap); n != 1 {
			t.Errorf("%s: %d events", name, n)
		}
		r.say("1", "2", "", c.source)
		r.handle()
		if left := r.queue.take(); len(left) != 0 || r.events(custody.AttachmentGap) != 1 {
			t.Errorf("%s: it is asked for again", name)
		}
	}
}

func TestAnEndlessBodyEndsAtTheLimit(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(100)) // so it is said
	r.shelf.read = func([]byte, int64) io.Reader { return zeros{} }
	r.config.Largest = 10_000
	r.say("1", "1", "", link)
	r.handle()
	if a := r.only(); a.Reason != conversation.GapTooLarge {
		t.Errorf("%+v", a)
	}
	if n := len(r.parts()); n != 10 {
		t.Errorf("%d parts were kept", n)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAForeignImageIsNeverAskedFor(t *testing.T) {
	r := newRig(t)
	r.say("1", "1", `<img src="https://media.giphy.com/x.gif"><img src="http://169.254.169.254/latest"><customemoji source="https://graph.microsoft.com@evil/hostedContents/x/$value"></customemoji>`)
	r.handle()
	list := r.results()
	for _, a := range list {
		if a.State != conversation.AttachmentGap || a.Reason != conversation.GapForeignHost {
			t.Errorf("%+v", a)
		}
	}
	if len(list) != 3 || r.shelf.hosted != 0 || !r.turns.next.IsZero() {
		t.Errorf("%d results, %d requests", len(list), r.shelf.hosted)
	}
}

func TestImagesOfAChatWaitForTheirTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		var body strings.Builder
		for i := range 5 {
			fmt.Fprintf(&body, `<img src="%s">`, strings.Replace(image, "aWQ", fmt.Sprint("aWQ", i), 1))
		}
		r.turns.next = time.Now()
		r.say("1", "1", body.String())
		r.handle()
		if n := r.shelf.hosted; n != 1 {
			t.Errorf("%d were fetched at once", n)
		}
		for i, u := range r.queue.until {
			if wait := time.Until(u); wait <= 0 {
				t.Errorf("the one put back as number %d may come at once", i)
			}
		}
		time.Sleep(15 * time.Second)
		next := r.turns.next
		r.handle()
		if len(r.results()) != 5 || !r.turns.next.Equal(next) {
			t.Errorf("%d results; places are taken twice: %t", len(r.results()), !r.turns.next.Equal(next))
		}
	})
}

func TestAThrottledAttachmentIsPutBackAndAtLastAGap(t *testing.T) {
	r := newRig(t)
	r.shelf.fail = &msgraph.Error{Status: http.StatusTooManyRequests}
	r.say("1", "1", "", link)
	rounds := 0
	for ; len(r.queue.sent) > 0; rounds++ {
		if rounds > 2*attachments.MaxAttempts {
			t.Fatal("it is put back for ever")
		}
		r.handle()
	}
	if a := r.only(); a.Reason != conversation.GapUnavailable || rounds != attachments.MaxAttempts+1 {
		t.Errorf("after %d rounds: %+v", rounds, a)
	}
}

func TestOtherBytesThanTheChecksumAreNeverTakenForTheFile(t *testing.T) {
	r := newRig(t)
	r.shelve([]byte("right"))
	r.shelf.item.QuickXorHash = "AAAAAAAAAAAAAAAAAAAAAAAAAAA=" // of nothing
	r.say("1", "1", "", link)
	for range attachments.MaxAttempts + 1 {
		r.handle()
	}
	if a := r.only(); a.Reason != conversation.GapAltered {
		t.Errorf("%+v", a)
	}
}

func TestABodyThatBreaksOffIsNotTheFile(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(2500))
	r.shelf.item.Modified = sent.Add(time.Hour) // an earlier version, of which no checksum is known
	r.shelf.versions = []msgraph.Version{{ID: "1", Modified: sent.Add(-time.Hour), Size: 2500}}
	r.shelf.bytes["1"] = noise(2500)
	broken := true
	r.shelf.read = func(b []byte, from int64) io.Reader {
		if broken {
			broken = false
			return io.MultiReader(bytes.NewReader(b[from:1700]), breaking{})
		}
		return bytes.NewReader(b[from:])
	}
	r.say("1", "1", "", link)
	r.handle()
	if len(r.results()) != 0 {
		t.Fatalf("taken for the file: %+v", r.results())
	}
	r.handle()
	if _, got := r.file(r.only()); !bytes.Equal(got, noise(2500)) || len(r.parts()) != 3 {
		t.Errorf("%d bytes in %d parts", len(got), len(r.parts()))
	}
}

type breaking struct{}

func (breaking) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestNothingIsFetchedThatNoMessageInTheArchivePointsAt(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(10))
	r.say("1", "1", "", link)
	r.queue.take()
	good := conversation.FileAsk{Tenant: tenant, Thread: thread, Custodian: alice, Message: "1", Sent: sent, Kind: conversation.KindFile, Source: link}
	for name, change := range map[string]func(*conversation.FileAsk){
		"another message": func(a *conversation.FileAsk) { a.Message = "2" },
		"another address": func(a *conversation.FileAsk) { a.Source += "x" },
		"another kind":    func(a *conversation.FileAsk) { a.Kind = conversation.KindLoop },
		"another time":    func(a *conversation.FileAsk) { a.Sent = sent.Add(-time.Minute) },
		"another day":     func(a *conversation.FileAsk) { a.Sent = sent.AddDate(0, 0, 1) },
		"another thread":  func(a *conversation.FileAsk) { a.Thread = "19:other@thread.v2" },
		"another tenant":  func(a *conversation.FileAsk) { a.Tenant = teams.TenantID("22222222-1111-4111-8111-111111111111") },
	} {
		ask := good
		change(&ask)
		body, err := conversation.EncodeFileAsk(ask)
		r.must(err)
		if err := r.process(&mortality{}).Handle(t.Context(), body); !errors.Is(err, funchost.ErrPoison) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := r.process(&mortality{}).Handle(t.Context(), []byte("{}")); !errors.Is(err, funchost.ErrPoison) {
		t.Errorf("no message: %v", err)
	}
	if len(r.shelf.asked)+len(r.results()) != 0 {
		t.Error("something was fetched")
	}
	good.Name, good.Custodian = "runme.exe", "bbbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"
	body, err := conversation.EncodeFileAsk(good)
	r.must(err)
	r.must(r.process(&mortality{}).Handle(t.Context(), body))
	if a := r.only(); a.State != conversation.AttachmentFetched || a.Name != "term sheet.pdf" || a.Custodian != alice {
		t.Errorf("the queue's word was taken: %+v", a)
	}
}

func TestNothingIsFetchedForADisposedConversation(t *testing.T) {
	r := newRig(t)
	r.shelve(noise(10))
	r.say("1", "1", "", link)
	r.must(r.catalog.Bury(t.Context(), r.id(), conversation.Disposed{At: sent, Ground: "erasure", Event: "e"}))
	r.handle()
	if len(r.shelf.asked)+len(r.results())+len(r.parts()) != 0 {
		t.Error("something came back")
	}
}
