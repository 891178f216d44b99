package portal_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
)

// firstByte is a response that writes into the journal when bytes leave.
type firstByte struct {
	*httptest.ResponseRecorder
	j *journal
}

func (f firstByte) Write(b []byte) (int, error) {
	f.j.add("bytes")
	return f.ResponseRecorder.Write(b)
}

func TestCustodyEventStandsBeforeTheFirstByteOfContent(t *testing.T) {
	w := newWorld(t)
	w.ring(rita, northCall)
	for _, pattern := range append(portal.ContentPatterns(), "conversations/{id}/legs/{leg}/{kind}/{lane}/{file}", "conversations/{id}/legs/{leg}/bundles/{name}") {
		w.handler = w.open(w.config)
		w.clock.Move(time.Hour) // no key is in memory any more
		w.journal.take()
		unwraps := w.vault.Unwraps()
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/steno/v1/"+asked(pattern, "north"), nil)
		r.Header.Set("Authorization", "Bearer "+w.token(nora))
		rec := firstByte{httptest.NewRecorder(), w.journal}
		w.handler.ServeHTTP(rec, r)
		want(t, rec.ResponseRecorder, http.StatusOK)
		lines := w.journal.take()
		what := "event read " + idOf(northThread)
		if strings.Contains(pattern, "{leg}") {
			what = "event play " + string(conversation.LegOf(tenant, northCall))
		}
		event, read, leave := index(lines, what), index(lines, "read "), index(lines, "bytes")
		if event < 0 || read < event || leave < read || index(lines, "size ") < event {
			t.Errorf("%s: order is %v", pattern, lines)
		}
		if n := w.vault.Unwraps() - unwraps; n != 1 {
			t.Errorf("%s: %d keys unwrapped, want 1", pattern, n)
		}
	}
}

func TestEventNamesTheReaderAndTheTokenAndIsToldBack(t *testing.T) {
	w := newWorld(t)
	id := idOf(northThread)
	token := w.claims(nora)
	rec := w.send(http.MethodGet, "/steno/v1/conversations/"+id+"/messages", http.Header{"Authorization": {"Bearer " + w.entra.Mint(token)}})
	want(t, rec, http.StatusOK)
	told := decode[messagesAnswer](t, rec.Body).Event
	records, err := w.trail.Range(t.Context(), started, w.clock.Now().Add(time.Second), 10)
	w.must(err)
	if len(records) != 1 {
		t.Fatalf("%d events, want 1", len(records))
	}
	r := records[0]
	if r.ID != told || r.Action != custody.Read || r.Actor != nora || r.Item != id || r.Tenant != tenant || r.Session != token["uti"] || r.System != "" {
		t.Errorf("got %+v, told %q", r, told)
	}
	rec = w.get(carla, "conversations?person="+string(rita))
	want(t, rec, http.StatusOK)
	records, err = w.trail.Range(t.Context(), w.clock.Now(), w.clock.Now().Add(time.Second), 10)
	w.must(err)
	if len(records) != 1 || records[0].Action != custody.List || records[0].Actor != carla || records[0].Detail != "1 conversations" {
		t.Errorf("a listing left %+v", records)
	}
}

func TestNothingLeavesWhenTheTrailIsDown(t *testing.T) {
	for name, breakTrail := range map[string]func(*watchedTrail){
		"failing": func(tr *watchedTrail) { tr.fail = errors.New("trail is gone") },
		"hanging": func(tr *watchedTrail) { tr.hang = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.attach(rita, conversation.ID(idOf(northThread)), northThread, "1773050400000", "x.pdf", matrixFile, []byte("north secret"))
			breakTrail(w.trail)
			for _, pattern := range portal.Patterns() {
				if pattern == "session" || pattern == "people" || pattern == "conversations/{id}" {
					continue // neither content nor a listing
				}
				for _, item := range []string{"north", "missing"} {
					if item == "missing" && pattern == "conversations" {
						continue
					}
					w.journal.take()
					ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
					r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/steno/v1/"+asked(pattern, item), nil)
					r.Header.Set("Authorization", "Bearer "+w.token(nora))
					rec := httptest.NewRecorder()
					w.handler.ServeHTTP(rec, r)
					cancel()
					w.clock.Move(time.Second)
					want(t, rec, http.StatusServiceUnavailable)
					if body := rec.Body.String(); strings.Contains(body, "secret") || strings.Contains(body, "trail") || strings.Contains(body, string(rita)) {
						t.Errorf("%s answers %q", pattern, body)
					}
					lines := w.journal.take()
					if index(lines, "size ") >= 0 || index(lines, "read ") >= 0 {
						t.Errorf("%s: evidence was touched: %v", pattern, lines)
					}
				}
			}
			if n := w.vault.Unwraps(); n != 0 {
				t.Errorf("%d keys were unwrapped", n)
			}
		})
	}
}

func TestDamagedEvidenceIsAnIncidentAndShowsNothing(t *testing.T) {
	w := newWorld(t)
	id, ref := w.say(rita, "19:damaged@thread.v2", text("1773050400000", "1", day, "canary of damaged"), text("1773050400001", "1", day, "second canary"))
	name := string(ref.Tenant) + "/" + ref.Unit + "/" + ref.Object
	size, err := w.blobs.Size(t.Context(), name)
	w.must(err)
	whole, err := w.blobs.ReadAt(t.Context(), name, 0, size)
	w.must(err)
	north, err := w.blobs.ReadAt(t.Context(), w.blobs.Names()[0], 0, 100)
	w.must(err)
	flip := func(at int) []byte {
		b := slices.Clone(whole)
		b[at] ^= 0x40
		return b
	}
	for what, damaged := range map[string][]byte{
		"first byte": flip(0), "header": flip(20), "content": flip(len(whole) / 2), "last byte": flip(len(whole) - 1),
		"cut": whole[:len(whole)-1], "longer": append(slices.Clone(whole), 0), "empty": {}, "another object's start": north, "zeros": make([]byte, len(whole)),
	} {
		w.blobs.Tamper(name, damaged)
		for _, path := range []string{"messages", "messages/1773050400000/versions/1/original"} {
			w.log.Reset()
			rec := w.get(nora, "conversations/"+string(id)+"/"+path)
			if rec.Code != http.StatusServiceUnavailable || strings.Contains(rec.Body.String(), "canary") {
				t.Errorf("%s, %s: %d %s", what, path, rec.Code, clip(rec.Body.String()))
			}
			if log := w.log.String(); !strings.Contains(log, `"level":"ERROR"`) || strings.Contains(log, "canary") || !strings.Contains(log, ref.Object) {
				t.Errorf("%s, %s: log is %q", what, path, log)
			}
		}
	}
	w.blobs.Tamper(name, whole)
	want(t, w.get(nora, "conversations/"+string(id)+"/messages"), http.StatusOK)
}

// TestObjectThatIsNotWhatTheCatalogListsIsRefused puts well-sealed evidence of another
// conversation, with other messages, where the catalog expects its own.
func TestObjectThatIsNotWhatTheCatalogListsIsRefused(t *testing.T) {
	w := newWorld(t)
	id, ref := w.say(rita, "19:swapped@thread.v2", text("1773050400000", "1", day, "swapped canary"))
	_, other := w.say(rita, "19:other@thread.v2", text("1773050400000", "1", day, "other canary"))
	plain := w.plain(other)
	name := string(ref.Tenant) + "/" + ref.Unit + "/" + ref.Object
	sealed, err := w.evidence.Seal(t.Context(), ref, plain)
	w.must(err)
	w.blobs.Tamper(name, sealed.Bytes)
	want(t, w.get(nora, "conversations/"+string(id)+"/messages"), http.StatusServiceUnavailable)

	own := strings.ReplaceAll(string(plain), other.Unit, ref.Unit) // the right header, and still other bytes
	sealed, err = w.evidence.Seal(t.Context(), ref, []byte(own))
	w.must(err)
	w.blobs.Tamper(name, sealed.Bytes)
	rec := w.get(nora, "conversations/"+string(id)+"/messages/1773050400000/versions/1/original")
	want(t, rec, http.StatusServiceUnavailable)
	if strings.Contains(rec.Body.String(), "canary") {
		t.Errorf("got %q", rec.Body)
	}
}

// plain opens an object as the system does.
func (w *world) plain(ref evidence.Ref) []byte {
	w.t.Helper()
	receipt, err := custody.Log{Trail: &w.trail.Trail, Now: w.clock.Now}.Append(w.t.Context(), custody.Event{
		Tenant: tenant, Action: custody.SystemRead, System: "test", Item: ref.Unit,
	})
	w.must(err)
	o, err := w.evidence.Open(w.t.Context(), ref, receipt)
	w.must(err)
	b, err := o.ReadAll(1 << 30)
	w.must(err)
	return b
}
