package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

func checkDoor(t *trial) {
	for _, c := range []struct {
		what   string
		change func(*http.Request)
		status int
		code   string
	}{
		{"no token", func(r *http.Request) { r.Header.Del("Authorization") }, 401, "unauthorized"},
		{"another token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+strings.Repeat("0", 64)) }, 401, "unauthorized"},
		{"a part of the token", func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+t.client.token[:10]) }, 401, "unauthorized"},
		{"a web page", func(r *http.Request) { r.Header.Set("Origin", "https://page.example") }, 403, "forbidden_origin"},
		{"another host name", func(r *http.Request) { r.Host = "localhost.example" }, 403, "forbidden_host"},
	} {
		for _, path := range []string{"/v1/health", "/v1/calls"} {
			res, err := t.client.do(t.ctx, http.MethodGet, path, nil, c.change)
			if err != nil {
				t.fatalf("%s: %v", c.what, err)
			}
			t.refused(res, c.status, c.code, c.what+" at "+path)
		}
	}
	res := t.demand(http.StatusOK, http.MethodGet, "/v1/calls", nil, nil)
	if res.header.Get("X-Contract") != "1.0" || res.header.Get("X-Gateway-Instance") == "" || res.header.Get("X-Request-Id") == "" {
		t.errorf("reply without X-Contract 1.0, X-Gateway-Instance or X-Request-Id")
	}
}

func checkBodies(t *trial) {
	t.create(map[string]any{"later": map[string]int{"version": 2}, "audio": map[string]any{"mode": "unmixed", "more": true}})
	filler := strings.Repeat("x", 257<<10)
	for _, c := range []struct {
		what, kind, body string
		status           int
		code             string
	}{
		{"a body of 257 KiB", "application/json", fmt.Sprintf(`{"callId":"big","x":%q}`, filler), 413, "too_large"},
		{"text", "text/plain", `{"callId":"text"}`, 415, "not_json"},
		{"half a body", "application/json", `{"callId":`, 400, "bad_json"},
		{"two values", "application/json", `{"callId":"a"}{}`, 400, "bad_json"},
		{"no call id", "application/json", `{}`, 400, "bad_field"},
		{"a path as call id", "application/json", `{"callId":"a/b"}`, 400, "bad_field"},
		{"a mode that is none", "application/json", `{"callId":"a","audio":{"mode":"stereo"}}`, 400, "bad_field"},
		{"eleven cameras", "application/json", `{"callId":"a","video":{"sockets":11}}`, 422, "unsupported_media"},
	} {
		res, err := t.client.do(t.ctx, http.MethodPost, "/v1/calls", []byte(c.body), func(r *http.Request) { r.Header.Set("Content-Type", c.kind) })
		if err != nil {
			t.fatalf("%s: %v", c.what, err)
		}
		t.refused(res, c.status, c.code, c.what)
	}
	t.refuses(http.StatusNotFound, "call_unknown", http.MethodPost, "/v1/calls/"+t.newID()+"/reoffer", map[string]any{})
	t.refuses(http.StatusNotFound, "call_unknown", http.MethodDelete, "/v1/calls/"+t.newID(), nil)
}

// createLimit is how long a call may take to be made, 99 times of 100.
const createLimit = 300 * time.Millisecond

func checkCreate(t *trial) {
	var took []time.Duration
	for range t.times(200, 15) {
		body := map[string]any{"callId": t.newID(), "scenarioId": "conformance"}
		start := time.Now()
		first := t.demand(http.StatusCreated, http.MethodPost, "/v1/calls", body, nil)
		took = append(took, time.Since(start))
		again := t.demand(http.StatusOK, http.MethodPost, "/v1/calls", body, nil)
		if a, b := rawBlob(first.body), rawBlob(again.body); len(a) < 3 || a[0] != '"' || !bytes.Equal(a, b) {
			t.errorf("blob %s came back as %s", a, b)
		}
		t.demand(http.StatusNoContent, http.MethodDelete, "/v1/calls/"+body["callId"].(string), nil, nil)
	}
	slices.Sort(took)
	p99, median := took[len(took)*99/100], took[len(took)/2]
	t.logf("created in %v, at worst %v", median, took[len(took)-1])
	if t.short && median > createLimit || !t.short && p99 > createLimit {
		t.errorf("half of the calls took more than %v, one in a hundred more than %v", median, p99)
	}
}

// rawBlob is the blob as it stands in a reply, escapes and all.
func rawBlob(body []byte) []byte {
	var m struct{ Blob json.RawMessage }
	if json.Unmarshal(body, &m) != nil {
		return nil
	}
	return m.Blob
}

func checkRepeat(t *trial) {
	body := map[string]any{"callId": t.newID(), "audio": map[string]string{"mode": "unmixed"}}
	first := t.demand(http.StatusCreated, http.MethodPost, "/v1/calls", body, nil)
	again := t.demand(http.StatusOK, http.MethodPost, "/v1/calls", body, nil)
	if !bytes.Equal(first.body, again.body) {
		t.errorf("the second reply differs from the first")
	}
	body["audio"] = map[string]string{"mode": "mixed"}
	t.refuses(http.StatusConflict, "call_conflict", http.MethodPost, "/v1/calls", body)
	path := "/v1/calls/" + body["callId"].(string)
	t.demand(http.StatusNoContent, http.MethodDelete, path, nil, nil)
	t.demand(http.StatusNoContent, http.MethodDelete, path+"?reason=again", nil, nil)
	t.refuses(http.StatusConflict, "call_conflict", http.MethodPost, "/v1/calls", body)

	c := t.connect(nil)
	t.refuses(http.StatusConflict, "call_conflict", http.MethodPost, "/v1/calls", map[string]any{"callId": c.id})
	answer := map[string]any{"sessionId": c.SessionID, "type": "answer", "sdp": "v=0\r\n"}
	t.refuses(http.StatusConflict, "answer_already_set", http.MethodPut, "/v1/calls/"+c.id+"/answer", answer)
	answer["sessionId"] = "another"
	t.refuses(http.StatusConflict, "session_mismatch", http.MethodPut, "/v1/calls/"+c.id+"/answer", answer)
	fresh := t.create(nil)
	answer["sessionId"] = fresh.SessionID
	t.refuses(http.StatusUnprocessableEntity, "sdp_rejected", http.MethodPut, "/v1/calls/"+fresh.id+"/answer", answer)
}

func checkAdmission(t *trial) {
	h, err := t.client.health(t.ctx)
	if err != nil {
		t.fatalf("health: %v", err)
	}
	t.cleanup(func() { t.control(map[string]any{"health": "ok", "draining": false, "maxCalls": h.Calls.Max}) })
	t.control(map[string]any{"maxCalls": h.Calls.Now + 1})
	t.create(nil)
	res := t.refuses(http.StatusTooManyRequests, "call_limit", http.MethodPost, "/v1/calls", map[string]any{"callId": t.newID()})
	if res.header.Get("Retry-After") == "" {
		t.errorf("429 without Retry-After")
	}
	t.control(map[string]any{"maxCalls": h.Calls.Max})
	for _, c := range []struct {
		health, code string
		status       int
	}{
		{"starting", "starting", 503}, {"heavy", "platform_heavily_loaded", 200},
		{"overloaded", "platform_overloaded", 503}, {"failed", "platform_failed", 503},
	} {
		t.control(map[string]any{"health": c.health})
		t.refuses(http.StatusServiceUnavailable, c.code, http.MethodPost, "/v1/calls", map[string]any{"callId": t.newID()})
		t.healthIs(c.status, c.health)
	}
	t.control(map[string]any{"health": "ok"})
	t.demand(http.StatusOK, http.MethodPost, "/v1/drain", map[string]any{}, nil)
	t.refuses(http.StatusServiceUnavailable, "draining", http.MethodPost, "/v1/calls", map[string]any{"callId": t.newID()})
	t.healthIs(http.StatusServiceUnavailable, "draining")
}

func (t *trial) healthIs(status int, word string) {
	res := t.ask(http.MethodGet, "/v1/health", nil)
	var h health
	if err := json.Unmarshal(res.body, &h); err != nil || res.status != status || h.Status != word {
		t.errorf("health is %d %q (%v), want %d %q", res.status, h.Status, err, status, word)
	}
}

func checkOffer(t *trial) {
	c := t.create(map[string]any{"video": map[string]int{"sockets": 2}, "vbss": true})
	want := []string{"a0", "a1", "a2", "a3", "mix", "v0", "v1", "vbss"}
	var names []string
	for _, tr := range c.Tracks {
		names = append(names, tr.Track)
	}
	if !slices.Equal(names, want) {
		t.fatalf("tracks %v, want %v", names, want)
	}
	if got := []string{"audio", "video", "videoBasedScreenSharing"}; !slices.Equal(c.Modalities, got) {
		t.errorf("modalities %v", c.Modalities)
	}
	session, sections := sections(c.Offer.SDP)
	if len(sections) != len(want)+1 {
		t.fatalf("%d media sections, want %d", len(sections), len(want)+1)
	}
	if !strings.HasPrefix(session.first("a=group:"), "a=group:BUNDLE ") {
		t.errorf("the sections are not bundled")
	}
	for i, tr := range c.Tracks {
		checkSection(t, i, tr, sections[i], c.ExtMap[sourceExtension])
	}
	if !strings.HasPrefix(sections[len(want)][0], "m=application ") {
		t.errorf("the last section is %q, not the data channel", sections[len(want)][0])
	}
	checkCandidates(t, c.Offer.SDP)
}

func checkSection(t *trial, i int, tr track, s section, ext int) {
	codec := fmt.Sprintf("a=rtpmap:%d opus/48000/2", tr.PT)
	if tr.Kind == "video" {
		codec = fmt.Sprintf("a=rtpmap:%d H264/90000", tr.PT)
	}
	for _, want := range []string{
		fmt.Sprintf("a=mid:%d", i), "a=sendonly", "a=rtcp-mux", "a=setup:actpass", codec, fmt.Sprintf("a=extmap:%d %s", ext, sourceExtension),
	} {
		if !slices.Contains(s, want) {
			t.errorf("section %d (%s) has no %q", i, tr.Track, want)
		}
	}
	if !strings.HasPrefix(s[0], "m="+tr.Kind+" ") || tr.MID != fmt.Sprint(i) {
		t.errorf("section %d is %q, its track %s has mid %q", i, s[0], tr.Track, tr.MID)
	}
	if got := s.first("a=ssrc:"); !strings.HasPrefix(got, fmt.Sprintf("a=ssrc:%d ", tr.SSRC)) {
		t.errorf("section %d has %q, its track SSRC %d", i, got, tr.SSRC)
	}
	if fmtp := s.first(fmt.Sprintf("a=fmtp:%d ", tr.PT)); tr.Kind == "video" && !strings.Contains(fmtp, "packetization-mode=1") || strings.Contains(fmtp, "usedtx=1") {
		t.errorf("section %d has %q", i, fmtp)
	}
}

func checkCandidates(t *trial, sdp string) {
	seen := map[string]bool{}
	for l := range strings.Lines(sdp) {
		if f := strings.Fields(l); strings.HasPrefix(l, "a=candidate:") && len(f) > 7 && f[1] == "1" {
			seen[strings.ToLower(f[2])+" "+f[4]+" "+f[5]+" "+f[7]] = true
		}
	}
	for c := range seen {
		if !strings.HasPrefix(c, "udp 127.0.0.1 ") || !strings.HasSuffix(c, " host") {
			t.errorf("candidate %s", c)
		}
	}
	if len(seen) != 1 {
		t.errorf("%d candidates, want one", len(seen))
	}
}

// section is the lines of one media section of an SDP.
type section []string

func (s section) first(prefix string) string {
	for _, l := range s {
		if strings.HasPrefix(l, prefix) {
			return l
		}
	}
	return ""
}

// sections splits an SDP into its session part and its media sections (RFC 8866).
func sections(sdp string) (session section, media []section) {
	for l := range strings.Lines(sdp) {
		l = strings.TrimSpace(l)
		switch {
		case strings.HasPrefix(l, "m="):
			media = append(media, section{l})
		case len(media) == 0:
			session = append(session, l)
		default:
			media[len(media)-1] = append(media[len(media)-1], l)
		}
	}
	return session, media
}
