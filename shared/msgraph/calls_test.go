package msgraph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/shared/teams"
)

const callID = teams.CallID("57dab8b1-894c-409a-b240-bd8beae78896")

type exchange struct{ method, path, auth, body string }

// calling is a client of a Graph that answers with the given handlers, the last one for
// ever.
type calling struct {
	*Calls
	tokens *tokens
	mu     sync.Mutex
	seen   []exchange
}

func newCalling(t *testing.T, answers ...http.HandlerFunc) *calling {
	t.Helper()
	c := &calling{tokens: &tokens{}}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		c.mu.Lock()
		n := len(c.seen)
		c.seen = append(c.seen, exchange{r.Method, r.URL.EscapedPath(), r.Header.Get("Authorization"), string(b)})
		c.mu.Unlock()
		answers[min(n, len(answers)-1)](w, r)
	}))
	t.Cleanup(srv.Close)
	var err error
	if c.Calls, err = NewCalls(CallsConfig{BaseURL: srv.URL + "/v1.0", Credential: c.tokens, Private: true}); err != nil {
		t.Fatal(err)
	}
	c.http.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig
	return c
}

func answer(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func (c *calling) asked() []exchange {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]exchange(nil), c.seen...)
}

var someAnswer = Answer{CallbackURI: "https://bot.example/calls/k/s", Blob: `{"b":"<&>"}`, Modalities: []string{"audio"}}

func TestAnswerCarriesTheBlobByteForByte(t *testing.T) {
	c := newCalling(t, answer(202, ""))
	if err := c.Answer(t.Context(), callID, someAnswer); err != nil {
		t.Fatal(err)
	}
	e := c.asked()[0]
	if e.method != "POST" || e.path != "/v1.0/communications/calls/"+string(callID)+"/answer" || e.auth != "Bearer "+bearer+"-1" {
		t.Fatalf("asked %+v", e)
	}
	var body struct {
		CallbackURI         string
		AcceptedModalities  []string
		ParticipantCapacity *int
		MediaConfig         map[string]string
	}
	if err := json.Unmarshal([]byte(e.body), &body); err != nil {
		t.Fatal(err)
	}
	if body.CallbackURI != someAnswer.CallbackURI || body.MediaConfig["blob"] != someAnswer.Blob ||
		body.MediaConfig["@odata.type"] != "#microsoft.graph.appHostedMediaConfig" || body.ParticipantCapacity != nil {
		t.Fatalf("body %s", e.body)
	}
}

func TestOnlyA200ToRecordingGrantsAnything(t *testing.T) {
	done := `{"id":"0fe0623f-d628-42ed-b4bd-8ac290072cc5","status":"completed"}`
	for _, c := range []struct {
		status  RecordingStatus
		code    int
		body    string
		granted bool
	}{
		{StatusRecording, 200, done, true},
		{StatusRecording, 200, "", true},
		{StatusNotRecording, 200, done, false},
		{StatusFailed, 200, done, false},
		{StatusRecording, 201, done, false},
		{StatusRecording, 202, done, false},
		{StatusRecording, 204, "", false},
		{StatusRecording, 403, `{"error":{"code":"8506"}}`, false},
		{StatusRecording, 404, `{"error":{"code":"8522"}}`, false},
		{StatusRecording, 302, "", false},
		{StatusRecording, 200, `{"id":"x","status":"failed"}`, false},
		{StatusRecording, 200, `<html>`, false},
	} {
		g := newCalling(t, answer(c.code, c.body))
		granted, err := g.UpdateRecordingStatus(t.Context(), callID, c.status)
		if granted.Covers(callID) != c.granted || (c.granted && err != nil) || granted.Covers("other") || granted.Covers("") {
			t.Errorf("%s answered %d %s: grant %t, %v", c.status, c.code, c.body, granted.Covers(callID), err)
		}
		if n := len(g.asked()); n != 1 {
			t.Errorf("%s answered %d: asked %d times", c.status, c.code, n)
		}
	}
}

func TestARepeatedStatusKeepsItsContext(t *testing.T) {
	c := newCalling(t, answer(503, ""), answer(429, ""), answer(200, "{}"))
	granted, err := c.UpdateRecordingStatus(t.Context(), callID, StatusRecording)
	if err != nil || !granted.Covers(callID) {
		t.Fatal(err)
	}
	seen := c.asked()
	if len(seen) != 3 || seen[0].body != seen[1].body || seen[1].body != seen[2].body {
		t.Fatalf("asked %v", seen)
	}
}

func TestAnAnswerIsRepeatedWhereRepeatingCanHelp(t *testing.T) {
	for status, times := range map[int]int{503: 2, 429: 2, 500: 2, 502: 2, 504: 2, 400: 1, 403: 1, 404: 1, 409: 1, 200: 1} {
		c := newCalling(t, answer(status, ""), answer(202, ""))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		err := c.Answer(ctx, callID, someAnswer)
		cancel()
		if n := len(c.asked()); n != times || (err == nil) != (times == 2) {
			t.Errorf("after %d: asked %d times, %v", status, n, err)
		}
	}
}

func TestAnAnswerThatMayHaveBeenTakenIsInDoubtWhateverComesAfter(t *testing.T) {
	c := newCalling(t, answer(504, ""), answer(404, `{"error":{"code":"8522"}}`))
	err := c.Answer(t.Context(), callID, someAnswer)
	var e *Error
	if !errors.Is(err, ErrDoubt) || errors.As(err, &e) || CallGone(err) {
		t.Errorf("%v", err)
	}
	c = newCalling(t, answer(503, ""), answer(404, `{"error":{"code":"8522"}}`))
	if err := c.Answer(t.Context(), callID, someAnswer); errors.Is(err, ErrDoubt) || !CallGone(err) {
		t.Errorf("%v", err)
	}
}

func TestAnAnswerWaitsForNothingItHasNoTimeFor(t *testing.T) {
	c := newCalling(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "7.5")
		w.WriteHeader(429)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	begin := time.Now()
	var e *Error
	if err := c.Answer(ctx, callID, someAnswer); !errors.As(err, &e) || e.Status != 429 {
		t.Fatal(err)
	}
	if d := time.Since(begin); d > 3*time.Second || len(c.asked()) != 1 {
		t.Fatalf("gave up after %s and %d attempts", d, len(c.asked()))
	}
}

func TestARefusedTokenIsFetchedAgain(t *testing.T) {
	c := newCalling(t, answer(401, ""), answer(200, ""))
	if err := c.KeepAlive(t.Context(), callID); err != nil {
		t.Fatal(err)
	}
	if seen := c.asked(); len(seen) != 2 || seen[1].auth != "Bearer "+bearer+"-2" {
		t.Fatalf("asked %v", seen)
	}
	c = newCalling(t, answer(401, ""))
	if err := c.KeepAlive(t.Context(), callID); err == nil || len(c.asked()) != 1+maxRefused {
		t.Fatalf("asked %d times, %v", len(c.asked()), err)
	}
}

func TestACallThatIsGoneIsToldApart(t *testing.T) {
	c := newCalling(t, answer(404, `{"error":{"code":8522,"message":"canary"}}`))
	err := c.KeepAlive(t.Context(), callID)
	var e *Error
	if !CallGone(err) || !errors.As(err, &e) || e.Code != CodeCallNotFound || strings.Contains(err.Error(), "canary") {
		t.Fatalf("keep alive: %v", err)
	}
	if err := c.HangUp(t.Context(), callID); err != nil {
		t.Fatalf("hang up: %v", err)
	}
	c = newCalling(t, answer(403, `{"error":{"code":"7505"}}`))
	if _, err := c.GetCall(t.Context(), callID); CallGone(err) || !strings.Contains(fmt.Sprint(err), "another tenant") {
		t.Fatalf("get call: %v", err)
	}
}

func TestIdsThatArePathsAreNeverAskedFor(t *testing.T) {
	c := newCalling(t, answer(200, ""))
	for _, id := range []teams.CallID{"", ".", "..", "../x", "a/b", `a\b`, "a?b", "a#b", "a%2fb", "a b", "a\nb", "..%2f", "https://evil.example/x"} {
		if _, err := c.GetCall(t.Context(), id); !errors.Is(err, teams.ErrMalformed) {
			t.Errorf("%q: %v", id, err)
		}
		if err := c.HangUp(t.Context(), id); !errors.Is(err, teams.ErrMalformed) {
			t.Errorf("%q: %v", id, err)
		}
	}
	if n := len(c.asked()); n != 0 {
		t.Fatalf("%d requests went out", n)
	}
}

func TestRedirectsOfCallsAreNotFollowed(t *testing.T) {
	var foreign int
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { foreign++ }))
	t.Cleanup(evil.Close)
	c := newCalling(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
	})
	if err := c.KeepAlive(t.Context(), callID); err == nil || foreign != 0 {
		t.Fatalf("%d requests went elsewhere, %v", foreign, err)
	}
}

func TestAnEndlessAnswerIsCutOff(t *testing.T) {
	c := newCalling(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, strings.Repeat("x", callAnswerBytes+1))
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.Participants(ctx, callID); err == nil {
		t.Fatal("read it all")
	}
}
