package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"steno/tests/sim"
	"steno/tests/world"
)

// tap notes what the tenant posts.
type tap struct {
	next http.RoundTripper
	mu   sync.Mutex
	seen []posted
}

type posted struct {
	url, token string
	body       []byte
}

func (p *tap) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.seen = append(p.seen, posted{r.URL.String(), strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), b})
	p.mu.Unlock()
	r.Body = io.NopCloser(bytes.NewReader(b))
	return p.next.RoundTrip(r)
}

func (p *tap) posts() []posted {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.seen)
}

func TestForgedAndRepeatedNotificationsChangeNothingOfARunningCall(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	listen := &tap{next: w.CA.Client().Transport}
	err := w.Tenant.Calls().Register(sim.Recorder{
		App: world.BotApp, Instance: world.BotInstance, Webhook: w.Bot.Calls(), Client: &http.Client{Transport: listen}, Gateways: w.Bot.Gateways(),
	})
	if err != nil {
		t.Fatal(err)
	}
	users := recordedUsers(w)
	call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{{Person: users[0], Recorded: true}, {Guest: "Visitor"}, {Phone: "+493012345685"}}})
	recording(t, call)
	talk(t, time.Second)
	id, genuine := call.Legs()[0].ID, listen.posts()
	callback := genuine[len(genuine)-1].url
	end := []byte(fmt.Sprintf(`{"value":[{"changeType":"deleted","resource":"/app/calls/%[1]s","resourceUrl":"/communications/calls/%[1]s",`+
		`"resourceData":{"@odata.type":"#microsoft.graph.call","state":"terminated","resultInfo":{"code":200,"subcode":5001}}}]}`, id))

	t.Run("tokens", func(t *testing.T) {
		for what, token := range forgedTokens(t, w) {
			for _, to := range []string{callback, w.Bot.Calls()} {
				refuse(t, w, what, to, token, end, http.StatusUnauthorized)
			}
		}
	})
	t.Run("addresses", func(t *testing.T) {
		good := genuine[0].token
		cut := strings.LastIndex(callback, "/")
		refuse(t, w, "wrong secret", callback[:cut+1]+strings.Repeat("A", len(callback)-cut-1), good, end, http.StatusUnauthorized)
		refuse(t, w, "no secret", callback[:cut], good, end, http.StatusNotFound)
		refuse(t, w, "unknown call", callback[:strings.LastIndex(callback[:cut], "/")]+"/nobody/nothing", good, end, http.StatusNotFound)
		// Without the call's secret a token is not enough: Graph is asked, and says that the call goes on.
		if _, err := post(t.Context(), w, w.Bot.Calls(), good, end); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("repetitions", func(t *testing.T) {
		for range 100 {
			for _, p := range genuine {
				if status, err := post(t.Context(), w, p.url, p.token, p.body); err != nil || status/100 != 2 {
					t.Fatalf("a genuine notification was answered %d when it came again: %v", status, err)
				}
			}
		}
	})
	talk(t, 3*time.Second)
	info := call.Legs()[0]
	if got := statuses(info); !slices.Equal(got, []string{"recording"}) || info.State != "established" || len(call.Legs()) != 1 {
		t.Errorf("the participants were told %q, the leg is %s", got, info.State)
	}
	if n := strings.Count(log.String(), `"msg":"call state","call":"`+id+`"`); n > 3 {
		t.Errorf("%d changes of state were seen, want at most establishing and established", n)
	}
	call.End()
	r := compare(t, a, log, call)
	t.Logf("%d genuine notifications 100 times each: %+v", len(genuine), r)
}

func refuse(t *testing.T, w *world.World, what, to, token string, body []byte, want int) {
	t.Helper()
	if got, err := post(t.Context(), w, to, token, body); err != nil || got != want {
		t.Errorf("%s: answered %d, %v, want %d", what, got, err, want)
	}
}

// forgedTokens are tokens that Teams did not give for this recorder, or not now.
func forgedTokens(t *testing.T, w *world.World) map[string]string {
	t.Helper()
	calls := w.Tenant.Calls()
	mint := func(app string, change func(map[string]any)) string {
		token, err := calls.Token(app, change)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	set := func(name string, value any) func(map[string]any) {
		return func(c map[string]any) { c[name] = value }
	}
	good := mint(world.BotApp, nil)
	parts := strings.Split(good, ".")
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims{"iss": "https://api.botframework.com", "aud": world.BotApp, "tid": w.Tenant.ID(),
		"exp": time.Now().Add(time.Hour).Unix()}).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{
		"no token":       "",
		"expired":        mint(world.BotApp, set("exp", time.Now().Add(-time.Hour).Unix())),
		"not yet valid":  mint(world.BotApp, set("nbf", time.Now().Add(time.Hour).Unix())),
		"other app":      mint(world.App, nil),
		"two audiences":  mint(world.BotApp, set("aud", []string{world.BotApp, world.App})),
		"other issuer":   mint(world.BotApp, set("iss", "https://api.botframework.com.example")),
		"other tenant":   mint(world.BotApp, set("tid", "00000000-0000-4000-8000-00000000000f")),
		"no tenant":      mint(world.BotApp, func(c map[string]any) { delete(c, "tid") }),
		"no signature":   parts[0] + "." + parts[1] + ".",
		"not signed":     none,
		"other payload":  parts[0] + "." + strings.Split(mint(world.BotApp, set("exp", time.Now().Add(2*time.Hour).Unix())), ".")[1] + "." + parts[2],
		"of the portal":  w.ControlToken(recordedUsers(w)[0]),
		"not a token":    "xyz",
		"control tenant": w.Entra.Mint(map[string]any{"iss": "https://api.botframework.com", "aud": world.BotApp, "tid": w.Tenant.ID()}),
	}
}

func TestFiftyInvitesInASecondAreAllAnsweredInTime(t *testing.T) {
	const n = 50
	w, a, log := startCalls(t, world.Config{Sim: sim.Config{People: 120}})
	users := recordedUsers(w)
	began := time.Now()
	var calls []*sim.Call
	for i := range n {
		talk(t, time.Until(began.Add(time.Duration(i)*time.Second/n)))
		// The tenant waits longer than Teams does: its part of the work is no part of the claim.
		calls = append(calls, place(t, w, sim.CallPlan{AnswerWithin: 30 * time.Second, Parties: []sim.Party{{Person: users[i%len(users)], Recorded: true}, {Phone: fmt.Sprintf("+4930990%04d", i), Caller: true}}}))
	}
	placed := time.Since(began)
	for _, c := range calls {
		recording(t, c)
	}
	after := answeredAfter(t, log)
	if len(after) != n {
		t.Errorf("%d of %d invites were answered", len(after), n)
	}
	worst := slices.Max(slices.Collect(maps.Values(after)))
	if worst > sim.AnswerWithin {
		t.Errorf("an answer took %s", worst)
	}
	talk(t, 3*time.Second)
	for _, c := range calls {
		c.End()
	}
	r := compare(t, a, log, calls...)
	t.Logf("%d invites in %s, the slowest was answered after %s: %+v", n, placed.Round(time.Millisecond), worst.Round(time.Millisecond), r)
}

// answeredAfter reads from the recorder's log how long each invite waited for its answer.
func answeredAfter(t *testing.T, log *lines) map[string]time.Duration {
	t.Helper()
	out := map[string]time.Duration{}
	for line := range strings.Lines(log.String()) {
		var said struct {
			Msg, Call string
			After     time.Duration
		}
		if json.Unmarshal([]byte(line), &said) == nil && said.Msg == "answered" {
			out[said.Call] = said.After
		}
	}
	return out
}
