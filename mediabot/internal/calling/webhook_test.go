package calling

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"steno/shared/teams"
)

func TestTheDocumentedInviteIsRead(t *testing.T) {
	r := newRig(t)
	path := r.invite(callID)
	if !strings.HasPrefix(path, "/steno/calls/") || len(path) < len("/steno/calls/")+16+1+32 {
		t.Fatalf("callback %s", path)
	}
	inv := r.invites[0]
	if inv.Call != callID || inv.Chain != "05f2f70f-3a9c-47c1-80a9-cc79e91d8cec" || inv.Tenant != tenant {
		t.Fatalf("invite %+v", inv)
	}
	if inv.Recorded.ID != "30fad2ce-8989-41a1-8a66-f6636e629a2a" || inv.Recorded.Kind != teams.PartyUser || inv.Recorded.Party.ID != "8a34a46b-3d17-4adc-8dce-dc4e7d572698" {
		t.Fatalf("recorded user %+v", inv.Recorded)
	}
	if inv.Recorder != "832899f8-2ea1-4604-8413-27bd2892079f" || inv.Caller == nil || *inv.Caller || inv.Meeting {
		t.Fatalf("invite %+v", inv)
	}
	if inv.Other == nil || inv.Other.ID != "971f0300-9c1f-4d99-b5f4-2722e877d490" || inv.Other.Tenant != "1540a1a5-2394-4a41-aa72-9ee6fa18cfc8" || len(inv.Paired) != 1 {
		t.Fatalf("other side %+v, paired %v", inv.Other, inv.Paired)
	}
	if strings.Contains(string(inv.Raw), "join token") || !strings.Contains(string(inv.Raw), "PolicyBasedRecording") {
		t.Fatalf("raw %s", inv.Raw)
	}
}

func TestForgedTokensChangeNothing(t *testing.T) {
	r := newRig(t)
	path := r.invite(callID)
	other := newIssuer(t)
	hs := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"aud": app, "iss": "https://api.botframework.com", "tid": string(tenant), "exp": time.Now().Add(time.Hour).Unix()})
	hs.Header["kid"] = "kid-1"
	symmetric, err := hs.SignedString([]byte("key"))
	if err != nil {
		t.Fatal(err)
	}
	none := jwt.NewWithClaims(jwt.SigningMethodNone, hs.Claims)
	none.Header["kid"] = "kid-1"
	unsigned, err := none.SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	rs512 := jwt.NewWithClaims(jwt.SigningMethodRS512, hs.Claims)
	rs512.Header["kid"] = "kid-1"
	longer, err := rs512.SignedString(r.issuer.keys["kid-1"])
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	mint := func(changes ...any) string { return r.issuer.token(t, changes...) }
	for name, token := range map[string]string{
		"no token": "", "alg none": unsigned, "HS256": symmetric, "RS512": longer, "rubbish": "a.b.c", "another issuer's key, our kid": other.token(t),
		"jwk header": mint("header:jwk", map[string]any{"kty": "RSA"}), "jku header": mint("header:jku", "https://evil.example"), "crit header": mint("header:crit", []string{"exp"}),
		"kid of nobody": mint("header:kid", "kid-9"), "audience of another": mint("aud", "11111111-1111-4111-8111-111111111111"), "audiences": mint("aud", []string{app}), "no audience": mint("aud", nil),
		"Entra issuer": mint("iss", "https://login.microsoftonline.com/"+string(tenant)+"/v2.0"), "issuer with suffix": mint("iss", "https://api.botframework.com/"), "no issuer": mint("iss", nil),
		"foreign tenant": mint("tid", "22222222-2222-4222-8222-222222222222"), "no tenant": mint("tid", nil), "tenant no GUID": mint("tid", "contoso"),
		"expired": mint("exp", now.Add(-Leeway-5*time.Second).Unix()), "no exp": mint("exp", nil), "not yet": mint("nbf", now.Add(Leeway+time.Minute).Unix()), "issued later": mint("iat", now.Add(Leeway+time.Minute).Unix()),
	} {
		for _, to := range []string{"/steno/incoming", path} {
			if rec := r.post(to, token, inviteTo(t, "forged")); rec.Code != http.StatusUnauthorized || rec.Body.Len() != 0 {
				t.Errorf("%s at %s: %d %q", name, to, rec.Code, rec.Body)
			}
			r.post(to, token, state(callID, "terminated"))
		}
	}
	for name, token := range map[string]string{
		"the other issuer": mint("iss", "https://graph.microsoft.com"), "just expired": mint("exp", now.Add(-Leeway+time.Minute).Unix()),
		"nearly valid": mint("nbf", now.Add(Leeway-time.Minute).Unix()), "tenant in capitals": mint("tid", strings.ToUpper(string(tenant))),
	} {
		if rec := r.post(path, token, state(callID, "establishing")); rec.Code != http.StatusAccepted {
			t.Errorf("%s: %d", name, rec.Code)
		}
	}
	if n := r.invited(); n != 1 {
		t.Fatalf("%d invites were taken", n)
	}
	for _, u := range r.seen(callID) {
		if u.State == teams.CallTerminated {
			t.Fatal("a forged notification ended the call")
		}
	}
}

func TestAnUnknownKeyIsLookedUpOnceInThirtySeconds(t *testing.T) {
	r := newRig(t)
	r.post("/steno/incoming", r.issuer.token(t), state("x", "established"))
	for i := range 1000 {
		r.post("/steno/incoming", r.issuer.token(t, "header:kid", fmt.Sprintf("no-%d", i)), "{}")
	}
	if n := r.issuer.fetches.Load(); n != 1 {
		t.Fatalf("%d fetches", n)
	}
}

func TestKnownKeysSurviveAnOutageAndNewOnesAreTakenOnFirstUse(t *testing.T) {
	i := newIssuer(t)
	now := time.Now()
	clock := func() time.Time { return now }
	r := newRig(t, func(c *Config) { c.Keys = i.source(clock) })
	r.issuer = i
	before := i.token(t)
	if rec := r.post("/steno/incoming", before, state("x", "established")); rec.Code != 202 {
		t.Fatal(rec.Code)
	}
	now = now.Add(time.Minute)
	i.rotate(t)
	if rec := r.post("/steno/incoming", i.token(t), state("x", "established")); rec.Code != 202 {
		t.Fatalf("a rotated key is answered %d", rec.Code)
	}
	i.down.Store(true)
	now = now.Add(48 * time.Hour)
	if rec := r.post("/steno/incoming", before, state("x", "established")); rec.Code != 202 {
		t.Fatalf("in an outage: %d", rec.Code)
	}
	now = now.Add(48 * time.Hour)
	if rec := r.post("/steno/incoming", before, state("x", "established")); rec.Code != 401 {
		t.Fatalf("after three days: %d", rec.Code)
	}
}

func TestACallbackNeedsItsSecret(t *testing.T) {
	r := newRig(t)
	path := r.invite(callID)
	second := r.invite("call-2")
	dead := state(callID, "terminated")
	at := strings.LastIndex(path, "/")
	for name, c := range map[string]struct {
		path string
		code int
	}{
		"wrong secret":       {path[:at+1] + strings.Repeat("0", 32), 401},
		"shorter secret":     {path[:len(path)-1], 401},
		"no secret":          {path[:at+1], 401},
		"no slash":           {path[:at], 404},
		"secret of another":  {path[:at] + second[strings.LastIndex(second, "/"):], 401},
		"unknown key":        {"/steno/calls/0000000000000000/" + strings.Repeat("0", 32), 404},
		"another call's own": {second, 202},
		"elsewhere":          {"/steno/other", 404},
		"without prefix":     {"/incoming", 404},
	} {
		if rec := r.post(c.path, r.issuer.token(t), dead); rec.Code != c.code {
			t.Errorf("%s: %d, want %d", name, rec.Code, c.code)
		}
	}
	if rec := r.post(path, r.issuer.token(t), state(callID, "establishing")); rec.Code != 202 {
		t.Fatal(rec.Code)
	}
	r.until("the state is known", func() bool { return len(r.updates[callID]) > 0 })
	if us := r.seen(callID); len(us) != 1 || us[0].State != teams.CallEstablishing {
		t.Fatalf("updates %+v", us)
	}
}

func TestAnEndWithoutTheSecretIsAskedAbout(t *testing.T) {
	for name, c := range map[string]struct {
		call  string
		err   error
		ended bool
	}{"Graph knows better": {`{"state":"established"}`, nil, false}, "Graph confirms": {`{"state":"terminated"}`, nil, true}, "the call is gone": {"", errGone, true}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.invite(callID)
			r.graph.say(c.call, c.err)
			if rec := r.post("/steno/incoming", r.issuer.token(t), change(callID, "deleted", "", "")); rec.Code != 202 {
				t.Fatal(rec.Code)
			}
			r.until("an update", func() bool { return len(r.updates[callID]) > 0 })
			if us := r.seen(callID); (us[0].State == teams.CallTerminated) != c.ended {
				t.Fatalf("updates %+v", us)
			}
		})
	}
}

func TestRepeatsChangeNothing(t *testing.T) {
	r := newRig(t)
	path := r.invite(callID)
	for range 100 {
		r.post("/steno/incoming", r.issuer.token(t), inviteTo(t, callID), "X-Microsoft-Skype-Message-ID", "m-0")
		r.post(path, r.issuer.token(t), state(callID, "established"), "X-Microsoft-Skype-Message-ID", "m-1")
		r.post(path, r.issuer.token(t), strings.ReplaceAll(fixture(t, "roster-notification"), "2f1a1100-b174-40a0-aba7-0b405e01ed92", callID))
	}
	r.post(path, r.issuer.token(t), change(callID, "deleted", "", ""))
	r.until("the end", func() bool {
		us := r.updates[callID]
		return len(us) > 0 && us[len(us)-1].State == teams.CallTerminated
	})
	if us := r.seen(callID); len(us) != 3 || r.invited() != 1 {
		t.Fatalf("%d updates of %d invites", len(us), r.invited())
	}
	r.until("the call is forgotten", func() bool { return r.hook.Calls() == 0 })
	r.post("/steno/incoming", r.issuer.token(t), inviteTo(t, callID))
	if r.invited() != 1 || r.hook.Calls() != 0 {
		t.Fatal("a call that was over was taken again")
	}
}

func TestALateNotificationNeverReopensAnEndedCall(t *testing.T) {
	states := []string{"incoming", "establishing", "established", "terminating", "hold", "somethingNew"}
	for _, late := range states {
		r := newRig(t)
		path := r.invite(callID)
		r.post(path, r.issuer.token(t), fmt.Sprintf(`{"value":[{"changeType":"deleted","resourceUrl":"/communications/calls/%s"},{"changeType":"updated","resourceUrl":"/communications/calls/%s","resourceData":{"state":%q}}]}`, callID, callID, late))
		r.until("the end", func() bool { return len(r.updates[callID]) > 0 })
		r.post(path, r.issuer.token(t), state(callID, late))
		r.until("the call is forgotten", func() bool { return r.hook.Calls() == 0 })
		if us := r.seen(callID); len(us) != 1 || us[0].State != teams.CallTerminated {
			t.Fatalf("%s after the end: %+v", late, us)
		}
	}
}

func TestInvitesAreLeftToOthersWhileNotReady(t *testing.T) {
	r := newRig(t)
	path := r.invite("call-1")
	r.notReady.Store(true)
	rec := r.post("/steno/incoming", r.issuer.token(t), inviteTo(t, "call-2"))
	if rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" || r.invited() != 1 {
		t.Fatalf("answered %d", rec.Code)
	}
	if rec := r.post(path, r.issuer.token(t), state("call-1", "established")); rec.Code != 202 {
		t.Fatalf("a call in progress is answered %d", rec.Code)
	}
	r.notReady.Store(false)
	r.invite("call-2") // the refusal was no end
}

func TestWhoJoinsIsInvitedAnew(t *testing.T) {
	r := newRig(t)
	path := r.invite(callID)
	rec := r.post(path, r.issuer.token(t), fixture(t, "participant-joining-notification"))
	if want := `{"@odata.type":"#microsoft.graph.inviteNewBotResponse","inviteUri":"https://bot-1.example/steno/incoming"}`; rec.Code != 200 || rec.Body.String() != want {
		t.Fatalf("answered %d %s", rec.Code, rec.Body)
	}
	if rec := r.post(path, r.issuer.token(t), fixture(t, "participant-left-notification")); rec.Code != 202 || rec.Body.Len() != 0 {
		t.Fatalf("answered %d", rec.Code)
	}
}

func TestACallThatNoPolicyRecordsIsRejected(t *testing.T) {
	r := newRig(t)
	if rec := r.post("/steno/incoming", r.issuer.token(t), fixture(t, "incoming-p2p-apphosted")); rec.Code != 202 {
		t.Fatal(rec.Code)
	}
	r.until("the rejection", func() bool { r.graph.mu.Lock(); defer r.graph.mu.Unlock(); return len(r.graph.rejected) == 1 })
	if r.invited() != 0 {
		t.Fatal("taken")
	}
}

func TestBadPostsAreRefusedAndTheRestIsTaken(t *testing.T) {
	r := newRig(t)
	path := r.invite(callID)
	for name, c := range map[string]struct {
		body string
		code int
	}{
		"nothing":     {"", 400},
		"not JSON":    {"{", 400},
		"no list":     {`{}`, 400},
		"empty list":  {`{"value":[]}`, 400},
		"deep":        {strings.Repeat("[", 40) + strings.Repeat("]", 40), 400},
		"large":       {`{"x":"` + strings.Repeat("x", MaxPost) + `"}`, 413},
		"many tokens": {`{"value":[` + strings.Repeat("1,", 60_000) + `1]}`, 400},
		"two values":  {state(callID, "established") + "{}", 400},
		"dot dot":     {state("../x", "established"), 400},
		"slash":       {state("a/b/c/d", "established"), 400},
		"percent":     {state("a%2f..", "established"), 400},
		"not a call":  {`{"value":[{"resourceUrl":"/users/x"}]}`, 400},
	} {
		if rec := r.post(path, r.issuer.token(t), c.body); rec.Code != c.code {
			t.Errorf("%s: %d, want %d", name, rec.Code, c.code)
		}
	}
	for _, kind := range []string{"text/plain", "application/xml", ""} {
		if rec := r.post(path, r.issuer.token(t), state(callID, "established"), "Content-Type", kind); rec.Code != 400 {
			t.Errorf("content type %q: %d", kind, rec.Code)
		}
	}
	if us := r.seen(callID); len(us) != 0 {
		t.Fatalf("updates %+v", us)
	}
	mixed := strings.Replace(state(callID, "established"), `{"value":[`, `{"value":[7,{"resourceUrl":"/communications/calls/../x"},`, 1)
	if rec := r.post(path, r.issuer.token(t), mixed); rec.Code != 202 {
		t.Fatal(rec.Code)
	}
	r.until("the readable one", func() bool { return len(r.updates[callID]) == 1 })
}

func TestAFloodOfForgedPostsDoesNotDelayAnInvite(t *testing.T) {
	r := newRig(t)
	forged := newIssuer(t).token(t)
	stop, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		for {
			select {
			case <-stop:
				return
			default:
				r.post("/steno/incoming", forged, "{}")
			}
		}
	}()
	begin := time.Now()
	for i := range 50 {
		r.invite(fmt.Sprintf("call-%d", i))
	}
	close(stop)
	<-over
	if d := time.Since(begin); d > 3*time.Second {
		t.Fatalf("50 invites took %s", d)
	}
	if n := strings.Count(r.logs.b.String(), "notification refused"); n > 60 {
		t.Fatalf("%d lines of refusals", n)
	}
}

func TestAFullQueueMakesTheCallAskGraph(t *testing.T) {
	block := make(chan struct{})
	var r *rig
	r = newRig(t, func(c *Config) {
		c.Take = func(inv teams.Invite, callback string) (func(teams.CallUpdate), error) {
			update, err := r.take(inv, callback)
			return func(u teams.CallUpdate) { <-block; update(u) }, err
		}
	})
	path := r.invite(callID)
	r.graph.say(`{"state":"terminated"}`, nil)
	codes := map[int]int{}
	for i := range QueuePerCall + 10 {
		codes[r.post(path, r.issuer.token(t), change(callID, "updated", "/participants", fmt.Sprintf(`[{"id":"p-%d"}]`, i))).Code]++
	}
	if codes[503] == 0 || codes[202] < QueuePerCall {
		t.Fatalf("answers %v", codes)
	}
	close(block)
	r.until("Graph's word", func() bool {
		us := r.updates[callID]
		return len(us) > 0 && us[len(us)-1].State == teams.CallTerminated
	})
	r.until("the queues are empty", func() bool { return r.hook.queued.Load() == 0 })
}

// TestACallOfADayIsKeptAlive runs on a clock of its own: 24 hours take no time.
func TestACallOfADayIsKeptAlive(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		r := newRigWith(t, i)
		c := newCall(r.hook, teams.Invite{Call: callID, Chain: "x", Tenant: tenant})
		r.hook.byID[callID], r.hook.byKey[c.key] = c, c
		r.hook.running.Go(func() { c.run(r.hook.ctx); r.hook.finish(callID, c) })
		synctest.Wait()
		put := func(state string) {
			if err := r.hook.enqueue(c, post{notification: notification{call: callID, change: "updated", data: []byte(`{"state":"` + state + `"}`)}, message: state}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		put("established")
		for hour := range 24 {
			time.Sleep(time.Hour)
			synctest.Wait()
			for n := range 100 {
				data := fmt.Sprintf(`[{"id":"p-%d","isMuted":%t},{"id":"p-a","rosterSequenceNumber":%d}]`, n%3, n%2 == 0, hour*100+n+1)
				if err := r.hook.enqueue(c, post{notification: notification{call: callID, part: "participants", data: []byte(data)}, message: fmt.Sprint(hour, n)}); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
			}
		}
		if r.graph.alive < 95 || r.graph.alive > 97 {
			t.Errorf("kept alive %d times in 24 h, want 96", r.graph.alive)
		}
		if len(c.seen) > seenPosts || len(c.ring) > seenPosts || len(c.roster.people) > 2 {
			t.Errorf("%d posts and %d people are remembered", len(c.seen), len(c.roster.people))
		}
		r.graph.say("", errGone)
		time.Sleep(KeepAliveEvery)
		synctest.Wait()
		if us := r.seen(callID); us[len(us)-1].State != teams.CallTerminated || r.hook.Calls() != 0 {
			t.Error("a call that Graph does not know goes on")
		}
	})
}

func TestACallThatIsNotEstablishedIsAskedAbout(t *testing.T) {
	r := newRig(t, func(c *Config) { c.EstablishWithin = 20 * time.Millisecond })
	r.graph.say(`{"state":"established"}`, nil)
	r.invite(callID)
	r.until("Graph's word", func() bool { return len(r.updates[callID]) == 2 })
	if us := r.seen(callID); us[0].Anomaly == "" || us[1].State != teams.CallEstablished || !strings.Contains(r.logs.b.String(), "alarm=not-established") {
		t.Fatalf("updates %+v", us)
	}
}

func TestNoTokenOrSecretIsLogged(t *testing.T) {
	r := newRig(t)
	path, token := r.invite(callID), r.issuer.token(t, "sub", "canary")
	r.post(path, token, state(callID, "established"))
	r.post(path+"x", token, "{}")
	r.post("/steno/incoming", token+"x", "{}")
	r.until("established", func() bool { return len(r.updates[callID]) == 1 })
	r.logs.mu.Lock()
	defer r.logs.mu.Unlock()
	for _, hidden := range []string{token, token[strings.LastIndex(token, ".")+1:], path[strings.LastIndex(path, "/")+1:], "join token", "8a34a46b", "30fad2ce"} {
		if strings.Contains(strings.ToLower(r.logs.b.String()), strings.ToLower(hidden)) {
			t.Errorf("the log holds %q", hidden)
		}
	}
}
