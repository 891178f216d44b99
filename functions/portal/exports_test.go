package portal_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

type exported struct {
	ID, State, Request, SHA256 string
	Conversations              int
	Size                       int64
}

// ids makes that many ids of conversations.
func conversationIDs(n int) string {
	var out []string
	for i := range n {
		out = append(out, fmt.Sprintf("%q", fmt.Sprintf("%032d-20260309", i)))
	}
	return "[" + strings.Join(out, ",") + "]"
}

func (w *world) ordered(n int) exported {
	w.t.Helper()
	rec := w.post(carla, "exports", `{"case":"7","reason":"asked for by the regulator","conversations":`+conversationIDs(n)+`}`)
	want(w.t, rec, http.StatusOK)
	return decode[exported](w.t, rec.Body)
}

func TestAnExportOfFewIsBuiltAtOnceAndOneOfManyWhenTwoAgree(t *testing.T) {
	w := newWorld(t)
	few := w.ordered(3)
	if few.State != "approved" || few.Conversations != 3 || len(w.queue.bodies) != 1 || !bytes.Contains(w.queue.bodies[0], []byte(few.ID)) {
		t.Fatalf("%+v, %d messages", few, len(w.queue.bodies))
	}
	many := w.ordered(policy.MaxExportAlone + 1)
	if many.State != "requested" || many.Request == "" || len(w.queue.bodies) != 1 {
		t.Fatalf("%+v, %d messages", many, len(w.queue.bodies))
	}
	agree := fmt.Sprintf(`{"request":%q}`, many.Request)
	want(t, w.post(carla, "approvals/"+many.Request+"/approve", agree), http.StatusUnprocessableEntity)
	want(t, w.post(cora, "approvals/"+many.Request+"/approve", agree), http.StatusOK)
	if len(w.queue.bodies) != 2 || !bytes.Contains(w.queue.bodies[1], []byte(many.ID)) {
		t.Fatalf("%d messages", len(w.queue.bodies))
	}
	o, err := w.exports.Get(t.Context(), many.ID)
	w.must(err)
	if o.State != policy.ExportApproved || o.Approver != cora {
		t.Errorf("%+v", o)
	}
	if n := len(w.did(custody.Requested)); n != 2 {
		t.Errorf("%d orders are on record", n)
	}
}

func TestAnExportWithoutReasonCaseOrConversationsIsRefused(t *testing.T) {
	w := newWorld(t)
	for _, body := range []string{
		`{"case":"7","reason":"","conversations":` + conversationIDs(1) + `}`, `{"case":"","reason":"asked for by the regulator","conversations":` + conversationIDs(1) + `}`,
		`{"case":"7","reason":"asked for by the regulator","conversations":[]}`, `{"case":"7","reason":"asked for by the regulator","conversations":["../x"]}`,
		`{"case":"7","reason":"asked for by the regulator","conversations":` + conversationIDs(1) + `,"recipient":"age1"}`,
	} {
		want(t, w.post(carla, "exports", body), http.StatusUnprocessableEntity)
	}
	want(t, w.post(carla, "exports", `{"case":"7","reason":"asked for by the regulator","conversations":`+conversationIDs(1)+`,"approver":"`+string(cora)+`"}`), http.StatusBadRequest)
	for _, who := range []teams.PersonID{nora, adam, aida, uma, otto} {
		want(t, w.post(who, "exports", `{"case":"7","reason":"asked for by the regulator","conversations":`+conversationIDs(1)+`}`), http.StatusNotFound)
	}
	if len(w.queue.bodies) != 0 {
		t.Error("something is being built")
	}
}

// ready stores a finished package of Carla's.
func (w *world) ready(b []byte) policy.ExportOrder {
	w.t.Helper()
	x := w.ordered(1)
	o, err := w.exports.Get(w.t.Context(), x.ID)
	w.must(err)
	o.Unit = "export-" + o.ID + "-00000000"
	parts := w.packages.NewParts(w.t.Context(), tenant, o.Unit)
	_, err = parts.Write(b)
	w.must(err)
	w.must(parts.Close())
	o.State, o.Size, o.SHA256, o.Expires = policy.ExportReady, parts.Size(), strings.Repeat("a", 64), w.clock.Now().Add(time.Hour)
	w.must(w.exports.Replace(w.t.Context(), o))
	return o
}

func (w *world) fetch(who teams.PersonID, id, span string) *httptest.ResponseRecorder {
	w.t.Helper()
	return w.fetchWith(w.token(who), id, span)
}

// fetchWith asks under a token: one sign-in is one session.
func (w *world) fetchWith(token, id, span string) *httptest.ResponseRecorder {
	w.t.Helper()
	h := http.Header{"Authorization": {"Bearer " + token}}
	if span != "" {
		h.Set("Range", span)
	}
	return w.send(http.MethodGet, "/steno/v1/exports/"+id+"/package", h)
}

func TestAPackageIsFetchedInRangesByWhoOrderedItWithOneEventBefore(t *testing.T) {
	w := newWorld(t)
	whole := bytes.Repeat([]byte("package "), 1<<20) // 8 MiB
	o := w.ready(whole)
	before := len(w.did(custody.Exported))
	var got []byte
	token := w.token(carla)
	for off := 0; off < len(whole); off += 4 << 20 {
		rec := w.fetchWith(token, o.ID, fmt.Sprintf("bytes=%d-%d", off, off+4<<20-1))
		want(t, rec, http.StatusPartialContent)
		checkAnswer(t, readDocument(t), "/exports/{export}/package", rec)
		got = append(got, rec.Body.Bytes()...)
	}
	if !bytes.Equal(got, whole) {
		t.Error("another package came")
	}
	if n := len(w.did(custody.Exported)) - before; n != 1 {
		t.Errorf("%d events for one download", n)
	}
	for _, span := range []string{"", "bytes=0-8388607", "bytes=9000000-", "bytes=0-1,3-4", "bytes=-0", "pages=1-2"} {
		want(t, w.fetch(carla, o.ID, span), http.StatusRequestedRangeNotSatisfiable)
	}
}

// TestAPackageIsNobodyElses is T43 and T06: another officer, a lost role, an expired package
// and an id that is none are answered alike, and no byte leaves.
func TestAPackageIsNobodyElses(t *testing.T) {
	w := newWorld(t)
	o := w.ready([]byte("package"))
	missing := w.fetch(carla, strings.Repeat("0", 32), "")
	want(t, missing, http.StatusNotFound)
	for _, who := range []teams.PersonID{cora, nora, adam, aida, uma, otto} {
		rec := w.fetch(who, o.ID, "")
		want(t, rec, http.StatusNotFound)
		if rec.Body.String() != missing.Body.String() {
			t.Errorf("%s is told more: %s", who, rec.Body)
		}
	}
	want(t, w.fetch(carla, "..%2f", ""), http.StatusNotFound)
	want(t, w.fetch(carla, o.ID, ""), http.StatusOK)
	w.clock.Move(2 * time.Hour)
	want(t, w.fetch(carla, o.ID, ""), http.StatusNotFound)

	w = newWorld(t)
	o = w.ready([]byte("package"))
	w.trail.fail = fmt.Errorf("the trail is away")
	want(t, w.fetch(carla, o.ID, ""), http.StatusServiceUnavailable)
	w.trail.fail = nil
	periods, err := w.roster.PeriodsOf(t.Context(), carla)
	w.must(err)
	for i := range periods {
		periods[i].To = w.clock.Now()
	}
	w.must(w.roster.Apply(t.Context(), policy.Change{At: w.clock.Now(), Closed: periods}))
	w.clock.Move(time.Second)
	want(t, w.fetch(carla, o.ID, ""), http.StatusNotFound)
}

func TestAnErasureIsAskedForByOneAndAgreedToByAnother(t *testing.T) {
	w := newWorld(t)
	body := `{"conversations":` + conversationIDs(2) + `,"ground":"Art. 17(1)(b)","notLocked":true,"reason":"she withdrew her consent"}`
	rec := w.post(adam, "erasures", body)
	want(t, rec, http.StatusOK)
	q := decode[request](t, rec.Body)
	if q.Action != "erase" || q.State != "pending" || len(q.IDs) != 2 {
		t.Fatalf("%+v", q)
	}
	rec = w.post(carla, "approvals/"+q.Request+"/approve", fmt.Sprintf(`{"request":%q}`, q.Request))
	want(t, rec, http.StatusOK)
	if got := decode[request](t, rec.Body); got.State != "approved" {
		t.Errorf("%+v: it must wait", got)
	}
	for _, bad := range []string{
		`{"conversations":["x"],"ground":"g","reason":"she withdrew her consent"}`, `{"conversations":` + conversationIDs(1) + `,"ground":"","reason":"she withdrew her consent"}`,
		`{"conversations":` + conversationIDs(201) + `,"ground":"g","reason":"she withdrew her consent"}`,
	} {
		want(t, w.post(carla, "erasures", bad), http.StatusBadRequest)
	}
	want(t, w.post(carla, "erasures", `{"conversations":[],"ground":"g","reason":"she withdrew her consent"}`), http.StatusUnprocessableEntity)
	for _, who := range []teams.PersonID{nora, aida, otto, uma} {
		want(t, w.post(who, "erasures", body), http.StatusNotFound)
	}
}
