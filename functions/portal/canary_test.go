package portal_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"steno/functions/portal"
	"steno/shared/bearer"
	"steno/shared/policy"
	"steno/shared/teams"
	"steno/tests/local/entra"
)

// TestCanariesAppearInNoLogAndNoError drives strings that nobody may find again through
// every route, every refusal and every failure.
func TestCanariesAppearInNoLogAndNoError(t *testing.T) {
	w := newWorld(t)
	canaries := map[string]string{
		"body": "canary-body-7f3a", "subject": "canary-subject-7f3a", "name": "Canary Name 7f3a", "address": "canary-7f3a@contoso.example",
		"claim": "Canary Claim 7f3a", "uti": "canary-uti-7f3a", "query": "canary-query-7f3a",
	}
	id, ref := w.say(rita, "19:canary@thread.v2", chatMessage("1773050400000", "1", day, map[string]any{
		"body":    map[string]any{"contentType": "text", "content": canaries["body"]},
		"subject": canaries["subject"], "from": map[string]any{"user": map[string]any{"id": string(rita), "displayName": canaries["name"]}},
	}))
	w.must(w.roster.Apply(t.Context(), policy.Change{People: []policy.Person{
		{ID: nora, DisplayName: canaries["name"], Address: canaries["address"], Enabled: true},
		{ID: rita, DisplayName: canaries["name"], Address: canaries["address"], Enabled: true},
	}}))
	secrets := []string{}
	for _, c := range canaries {
		secrets = append(secrets, c)
	}
	claims := func(who teams.PersonID, more ...any) map[string]any {
		c := w.entra.PersonClaims(entra.Person{ID: string(who), Name: canaries["claim"], UPN: canaries["address"]}, audience, client, scope)
		c["uti"] = canaries["uti"]
		for i := 0; i+1 < len(more); i += 2 {
			c[more[i].(string)] = more[i+1]
		}
		return c
	}
	tokens := []string{
		w.entra.Mint(claims(nora)), w.entra.Mint(claims(otto)), w.entra.Mint(claims(nora, "aud", canaries["claim"])),
		w.entra.Mint(claims(nora, "iss", canaries["claim"])), w.entra.Mint(claims(nora, "exp", canaries["claim"])), w.entra.Mint(claims(nora, "exp", 1)),
		w.entra.Mint(claims(nora, "scp", canaries["claim"])), w.entra.Mint(claims(nora), w.entra.WithForeignKey()),
		w.entra.Mint(claims(nora), entra.WithHeader("kid", canaries["claim"])), w.entra.Mint(claims(nora), entra.WithHeader("alg", canaries["claim"])),
		canaries["claim"] + ".x.y",
	}
	for _, token := range tokens {
		secrets = append(secrets, token, token[strings.LastIndex(token, ".")+1:])
	}
	round := func() {
		for _, token := range tokens {
			for _, pattern := range portal.Patterns() {
				path := strings.Replace(asked(strings.ReplaceAll(pattern, "{id}", string(id)), "north"), "HOLE", "", 1)
				for _, query := range []string{"", "?person=" + canaries["query"], "?cursor=" + canaries["query"], "?" + canaries["query"] + "=1", "?from=" + canaries["query"]} {
					rec := w.send(http.MethodGet, "/steno/v1/"+path+query, http.Header{"Authorization": {"Bearer " + token}})
					if rec.Code != http.StatusOK {
						w.absent(rec.Body.String(), fmt.Sprintf("the answer %d of %s", rec.Code, path), secrets...)
					}
				}
			}
			for _, path := range []string{"conversations/" + canaries["query"], "threads/" + canaries["query"] + "/conversations", canaries["query"]} {
				rec := w.send(http.MethodGet, "/steno/v1/"+path, http.Header{"Authorization": {"Bearer " + token}})
				w.absent(rec.Body.String(), fmt.Sprintf("the answer %d", rec.Code), secrets...)
			}
		}
	}
	round()
	w.blobs.Tamper(string(ref.Tenant)+"/"+ref.Unit+"/"+ref.Object, []byte("damaged"))
	round()
	w.trail.fail = errors.New("trail is gone")
	round()
	w.login.Close()
	w.clock.Move(bearer.KeysUsable)
	round()
	if w.log.Len() == 0 {
		t.Fatal("nothing was logged, so nothing was tested")
	}
	w.absent(w.log.String(), "the log", append(secrets, string(nora), string(otto))...)
}

func (w *world) absent(in, where string, secrets ...string) {
	w.t.Helper()
	for _, s := range secrets {
		if len(s) > 2 && strings.Contains(in, s) {
			w.t.Errorf("%s holds %q", where, clip(s))
		}
	}
}

// burst sends n requests at one moment and counts the answers by status.
func (w *world) burst(n int, who teams.PersonID, path string) map[int]int {
	w.t.Helper()
	token := "Bearer " + w.token(who)
	out := map[int]int{}
	for range n {
		r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, "/steno/v1/"+path, nil)
		r.Header.Set("Authorization", token)
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, r)
		out[rec.Code]++
		if after, err := strconv.Atoi(rec.Header().Get("Retry-After")); rec.Code == http.StatusTooManyRequests && (err != nil || after < 1) {
			w.t.Fatalf("429 with Retry-After %q", rec.Header().Get("Retry-After"))
		}
	}
	return out
}

func TestRequestsOfOnePersonAreLimited(t *testing.T) {
	w := newWorld(t)
	got := w.burst(portal.RequestsBurst+40, nora, "session")
	if got[200] != portal.RequestsBurst || got[429] != 40 {
		t.Errorf("a burst is answered %v", got)
	}
	if got := w.burst(1, saul, "session"); got[200] != 1 {
		t.Errorf("somebody else is answered %v", got)
	}
	w.clock.Move(time.Second)
	if got := w.burst(portal.RequestsPerSecond+5, nora, "session"); got[200] != portal.RequestsPerSecond || got[429] != 5 {
		t.Errorf("a second later: %v", got)
	}
}

func TestOpeningContentIsLimitedByTheMinute(t *testing.T) {
	w := newWorld(t)
	path := "conversations/" + idOf(northThread) + "/messages"
	opened, refused := 0, 0
	for range 4 {
		got := w.burst(portal.OpensPerMinute/3, nora, path)
		opened, refused = opened+got[200], refused+got[429]
		w.clock.Move(2 * time.Second)
	}
	// Eight seconds give back a few beyond the first minute's.
	if opened < portal.OpensPerMinute || opened > portal.OpensPerMinute+16 || refused == 0 {
		t.Errorf("%d opened, %d refused", opened, refused)
	}
	events := 0
	for _, line := range w.journal.take() {
		if strings.HasPrefix(line, "event read") {
			events++
		}
	}
	if events != opened {
		t.Errorf("%d events for %d readings", events, opened)
	}
}

func TestUnverifiedTokensUseUpNobodysLimit(t *testing.T) {
	w := newWorld(t)
	forged := w.entra.Mint(w.claims(nora), w.entra.WithForeignKey())
	for range 2 * portal.RequestsBurst {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/steno/v1/session", nil)
		r.Header.Set("Authorization", "Bearer "+forged)
		rec := httptest.NewRecorder()
		w.handler.ServeHTTP(rec, r)
		want(t, rec, http.StatusUnauthorized)
	}
	if got := w.burst(portal.RequestsBurst, nora, "session"); got[200] != portal.RequestsBurst {
		t.Errorf("Nora is answered %v", got)
	}
}
