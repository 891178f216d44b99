package sim_test

import (
	"bytes"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"steno/tests/sim"
)

func TestAnInviteNamesTheRecordedUserUnderObservation(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.place(sim.CallPlan{})
	var invite struct {
		ID, State, CallChainID, TenantID string
		Source                           struct {
			Identity map[string]json.RawMessage
		}
		IncomingContext struct{ ObservedParticipantID string }
	}
	if err := json.Unmarshal(b.heard()[0].Value[0].ResourceData, &invite); err != nil {
		t.Fatal(err)
	}
	if invite.ID != id || invite.State != "incoming" || invite.CallChainID != call.ID() || invite.TenantID != b.ID() {
		t.Errorf("invite %+v", invite)
	}
	if got := invite.IncomingContext.ObservedParticipantID; got != string(call.Participants()[0]) {
		t.Errorf("observed %s", got)
	}
	if !strings.Contains(string(invite.Source.Identity["user"]), string(b.recorded())) {
		t.Errorf("source %s", invite.Source.Identity["user"])
	}
}

func TestTheTruthOfARunningCallNamesTheSourceOfWhoeverCameLast(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, _ := b.place(sim.CallPlan{})
	last, err := call.Join(sim.Party{Guest: "Latecomer"})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(call.Truth().Sources, func(s sim.SourcePeriod) bool { return s.Participant == last && s.Party.Guest == "Latecomer" }) {
		t.Errorf("sources %+v", call.Truth().Sources)
	}
}

func TestABlobThatLeadsElsewhereEstablishesTheCallWithoutMediaFromHere(t *testing.T) {
	b := newBot(t, sim.Config{})
	err := b.Calls().Register(sim.Recorder{
		App: botApp, Instance: botInstance, Webhook: b.server.URL + "/invites", Client: b.server.Client(),
		Elsewhere: func(blob string) bool { return blob == "elsewhere" },
	})
	if err != nil {
		t.Fatal(err)
	}
	_, id := b.place(sim.CallPlan{})
	if r := b.answer(id, "elsewhere"); r.status != http.StatusAccepted {
		t.Fatalf("answered %d", r.status)
	}
	b.until("established", func() bool { return slices.Contains(b.states(id), "updated established") })
}

func TestNotificationsAreSignedForTheAppByAPublishedKey(t *testing.T) {
	b := newBot(t, sim.Config{})
	b.place(sim.CallPlan{})
	token := strings.TrimPrefix(b.heard()[0].header.Get("Authorization"), "Bearer ")
	parsed, err := jwt.Parse(token, b.publishedKey, jwt.WithIssuer("https://api.botframework.com"), jwt.WithAudience(botApp),
		jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired())
	if err != nil {
		t.Fatal(err)
	}
	if tid := parsed.Claims.(jwt.MapClaims)["tid"]; tid != b.ID() {
		t.Errorf("tid %v", tid)
	}
}

func (b *bot) publishedKey(token *jwt.Token) (any, error) {
	var config struct {
		URI string `json:"jwks_uri"`
	}
	var set struct {
		Keys []struct{ KID, N, E string }
	}
	for _, get := range []struct {
		url  string
		into any
	}{{b.url + sim.OpenIDConfigurationPath, &config}, {"", &set}} {
		if get.url == "" {
			get.url = config.URI
		}
		res, err := http.Get(get.url)
		if err != nil {
			return nil, err
		}
		err = json.NewDecoder(res.Body).Decode(get.into)
		_ = res.Body.Close()
		if err != nil {
			return nil, err
		}
	}
	for _, k := range set.Keys {
		if k.KID == token.Header["kid"] {
			n, err := base64.RawURLEncoding.DecodeString(k.N)
			if err != nil {
				return nil, err
			}
			return &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537}, nil
		}
	}
	return nil, fmt.Errorf("no key %v", token.Header["kid"])
}

func TestAnInviteThatNobodyAnswersEndsAndMayComeAgain(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, first := b.place(sim.CallPlan{AnswerWithin: 50 * time.Millisecond, InviteAgain: 1})
	b.until("the second invite", func() bool { return len(call.Legs()) == 2 })
	second := call.Legs()[1]
	if second.ID == first {
		t.Error("the second invite has the id of the first")
	}
	b.until("the end of the first", func() bool { return slices.Contains(b.states(first), "deleted terminated") })
	if r := b.answer(first, b.blob(first)); r.status != http.StatusNotFound || errorCode(r) != "8522" {
		t.Errorf("late answer: %d %s", r.status, r.body)
	}
}

func TestRecordingStatusIsTakenOnceTheCallIsEstablished(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.place(sim.CallPlan{Ringing: 300 * time.Millisecond})
	b.answer(id, b.blob(id))
	update := map[string]string{"clientContext": "c-1", "status": "recording"}
	if r := b.graph("POST", id+"/updateRecordingStatus", update); r.status != http.StatusBadRequest {
		t.Errorf("before established: %d", r.status)
	}
	b.until("established", func() bool { return slices.Contains(b.states(id), "updated established") })
	r := b.graph("POST", id+"/updateRecordingStatus", update)
	if r.status != http.StatusOK || !strings.Contains(r.header.Get("Location"), id+"/operations/") || !strings.Contains(string(r.body), `"clientContext":"c-1"`) {
		t.Errorf("%d %v %s", r.status, r.header, r.body)
	}
	if s := call.Legs()[0].Statuses; len(s) != 1 || s[0].Status != "recording" {
		t.Errorf("statuses %v", s)
	}
	if r := b.graph("POST", id+"/updateRecordingStatus", map[string]string{"status": "paused"}); r.status != http.StatusBadRequest {
		t.Errorf("unknown status: %d", r.status)
	}
}

func TestACallUnderNoPolicyCannotBeSaidToBeRecorded(t *testing.T) {
	b := newBot(t, sim.Config{})
	_, id := b.establish(sim.CallPlan{Direct: true})
	r := b.graph("POST", id+"/updateRecordingStatus", map[string]string{"status": "recording"})
	if r.status != http.StatusForbidden || errorCode(r) != "8506" {
		t.Errorf("%d %s", r.status, r.body)
	}
	if strings.Contains(string(b.heard()[0].Value[0].ResourceData), "observedParticipantId") {
		t.Error("the invite names somebody under observation")
	}
}

func TestABlobThatLeadsNowhereEndsTheCallAfterItsAnswer(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.place(sim.CallPlan{})
	blob := b.blob(id)
	if r := b.answer(id, strings.ReplaceAll(blob, `\/`, "/")); r.status != http.StatusAccepted {
		t.Fatalf("answer: %d", r.status)
	}
	b.until("the end", func() bool { return slices.Contains(b.states(id), "deleted terminated") })
	if got := call.Legs()[0].Result; got != sim.NoMediaControl {
		t.Errorf("result %v", got)
	}
}

func TestTokensAreOfTheTenantAndTheAppAndHaveTheRole(t *testing.T) {
	var mu sync.Mutex
	claims := map[string]any{}
	b := newBot(t, sim.Config{VerifyToken: func(string) (map[string]any, error) {
		mu.Lock()
		defer mu.Unlock()
		return claims, nil
	}})
	_, id := b.place(sim.CallPlan{})
	media := []any{"Calls.AccessMedia.All"}
	for _, c := range []struct {
		claims map[string]any
		status int
		code   string
	}{
		{map[string]any{"tid": "other", "appid": botApp, "roles": media}, 403, "7505"},
		{map[string]any{"tid": b.ID(), "appid": botApp, "roles": []any{"User.Read.All"}}, 403, "7504"},
		{map[string]any{"tid": b.ID(), "appid": "other", "roles": media}, 404, "8522"},
		{map[string]any{"tid": b.ID(), "appid": botApp, "roles": media}, 202, ""},
	} {
		mu.Lock()
		claims = c.claims
		mu.Unlock()
		r := b.answer(id, "{}")
		if r.status != c.status || c.code != "" && errorCode(r) != c.code {
			t.Errorf("%v: %d %s", c.claims, r.status, r.body)
		}
	}
}

func TestTheRosterIsWholeAndFollowsHoldMuteAndLobby(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.establish(sim.CallPlan{Kind: sim.Conferred, Parties: []sim.Party{
		{Person: b.recorded(), Recorded: true}, {Guest: "Somebody", Lobby: true}, {Phone: "+4930123456"}, {Person: b.Outsiders()[0].ID},
	}})
	who := call.Participants()
	for _, err := range []error{call.Admit(who[1]), call.Mute(who[2], true), call.Hold(who[3], true)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var roster []struct {
		ID                 string
		IsMuted, IsInLobby bool
		MediaStreams       []struct{ SourceID, Direction string }
	}
	b.until("the roster", func() bool {
		var last json.RawMessage
		n := 0
		for _, x := range b.heard() {
			if x.Value[0].ResourceURL == "/communications/calls/"+id+"/participants" {
				last = x.Value[0].ResourceData
				n++
			}
		}
		return n == 4 && json.Unmarshal(last, &roster) == nil
	})
	if len(roster) != 5 {
		t.Fatalf("%d in the roster", len(roster))
	}
	if roster[2].IsInLobby || !roster[3].IsMuted || roster[4].MediaStreams[0].Direction != "inactive" {
		t.Errorf("roster %+v", roster)
	}
}

func TestEveryLegOfACallHearsTheSameSpeech(t *testing.T) {
	b := newBot(t, sim.Config{})
	desk := b.UsersIn(sim.RecordedRates)
	call, first := b.establish(sim.CallPlan{Kind: sim.Conferred, Talk: sim.AllAtOnce, Parties: []sim.Party{
		{Person: desk[0], Recorded: true}, {Person: desk[1], Recorded: true},
	}})
	legs := call.Legs()
	if len(legs) != 2 || legs[1].ID == first {
		t.Fatalf("legs %v", legs)
	}
	b.answer(legs[1].ID, b.blob(legs[1].ID))
	for _, l := range legs {
		b.until("ticks of "+l.ID, func() bool { i, ok := b.media.Call(l.ID); return ok && i.Counters.Ticks >= 25 })
	}
	call.End()
	truth := call.Truth()
	if len(truth.Utterances) != 2 || len(truth.Sources) != 2 {
		t.Fatalf("%d utterances of %d sources", len(truth.Utterances), len(truth.Sources))
	}
	for _, u := range truth.Utterances {
		if len(u.Packets) < 25 || u.From.UnixNano()%int64(20*time.Millisecond) != 0 {
			t.Errorf("%d packets from %v", len(u.Packets), u.From)
		}
	}
	if bytes.Equal(truth.Utterances[0].Packets[0], truth.Utterances[1].Packets[0]) {
		t.Error("two people speak with one voice")
	}
}

func TestNobodySpeaksWhoIsMutedOrGone(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.establish(sim.CallPlan{Kind: sim.Conferred, Talk: sim.AllAtOnce, Parties: []sim.Party{
		{Person: b.recorded(), Recorded: true}, {Guest: "Somebody"}, {Guest: "Another", Muted: true},
	}})
	ticks := func(n int64) {
		b.until("ticks", func() bool { i, _ := b.media.Call(id); return i.Counters.Ticks >= n })
	}
	ticks(10)
	if err := call.Leave(call.Participants()[1]); err != nil {
		t.Fatal(err)
	}
	i, _ := b.media.Call(id)
	ticks(i.Counters.Ticks + 10)
	truth := call.Truth()
	if len(truth.Utterances) != 2 {
		t.Fatalf("%d utterances", len(truth.Utterances))
	}
	if a, g := truth.Utterances[0], truth.Utterances[1]; len(g.Packets) >= len(a.Packets) {
		t.Errorf("the one who left said %d packets, the one who stayed %d", len(g.Packets), len(a.Packets))
	}
}

func TestATransferHasANewChainAndNamesTheTransferor(t *testing.T) {
	b := newBot(t, sim.Config{})
	desk := b.UsersIn(sim.RecordedRates)
	call, id := b.establish(sim.CallPlan{})
	next, err := call.Transfer(call.Participants()[0], sim.Party{Person: desk[0], Recorded: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := call.Legs()[0].Result; got != sim.Transferred {
		t.Errorf("old leg ended with %v", got)
	}
	leg := next.Legs()[0]
	b.until("the new invite", func() bool { return len(b.states(leg.ID)) > 0 })
	b.until("the old end", func() bool { return slices.Contains(b.states(id), "deleted terminated") })
	for _, n := range b.heard() {
		if n.Value[0].ResourceURL == "/communications/calls/"+leg.ID && !strings.Contains(string(n.Value[0].ResourceData), `"transferor"`) {
			t.Errorf("the invite names no transferor: %s", n.Value[0].ResourceData)
		}
	}
	if next.ID() == call.ID() {
		t.Error("the chain id survived")
	}
}

func TestPairedRecordersAreInvitedBesideEachOther(t *testing.T) {
	b := newBot(t, sim.Config{})
	err := b.Calls().Register(sim.Recorder{App: "second", Instance: "second-instance", Webhook: b.server.URL + "/second", Client: b.server.Client()})
	if err != nil {
		t.Fatal(err)
	}
	call, _ := b.place(sim.CallPlan{})
	legs := call.Legs()
	if len(legs) != 2 || legs[0].Recorder == legs[1].Recorder || legs[0].Observed != legs[1].Observed {
		t.Fatalf("legs %+v", legs)
	}
	b.until("both invites", func() bool { return len(b.heard()) == 2 })
	for _, n := range b.heard() {
		if !strings.Contains(string(n.Value[0].ResourceData), `"pairedRecorders":[{`) {
			t.Errorf("%s names no paired recorder", n.Value[0].ResourceURL)
		}
	}
}

func TestNotificationsComeAsDisorderlyAsPlanned(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.establish(sim.CallPlan{Disorder: true, TextCodes: true})
	b.until("all states", func() bool { return len(b.states(id)) == 4 })
	want := []string{"created incoming", "updated established", "updated establishing", "updated established"}
	if got := b.states(id); !slices.Equal(got, want) {
		t.Errorf("states %v", got)
	}
	call.Break(sim.MediaLost)
	b.until("the end", func() bool { return len(b.states(id)) == 5 })
	all := b.heard()
	last := all[len(all)-1]
	if !strings.Contains(string(last.Value[0].ResourceData), `"code":"410"`) || last.path != "/calls/"+id {
		t.Errorf("last notification at %s: %s", last.path, last.Value[0].ResourceData)
	}
}

func TestACallEndsThatIsNotKeptAlive(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.establish(sim.CallPlan{KeepAliveWithin: 2 * time.Second})
	if r := b.graph("POST", id+"/keepAlive", nil); r.status != http.StatusOK {
		t.Errorf("keepAlive: %d", r.status)
	}
	b.until("the end", func() bool { return call.Legs()[0].State == "terminated" })
	if got := call.Legs()[0].Result; got != sim.NoKeepAlive {
		t.Errorf("result %v", got)
	}
	if r := b.graph("POST", id+"/keepAlive", nil); r.status != http.StatusNotFound || errorCode(r) != "8522" {
		t.Errorf("keepAlive afterwards: %d %s", r.status, r.body)
	}
}

func TestARecorderCanHangUpAndReject(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.establish(sim.CallPlan{})
	if r := b.graph("DELETE", id, nil); r.status != http.StatusNoContent || call.Legs()[0].Result != sim.EndedByRecorder {
		t.Errorf("delete: %d, %v", r.status, call.Legs()[0].Result)
	}
	_, other := b.place(sim.CallPlan{})
	if r := b.graph("POST", other+"/reject", map[string]string{"reason": "busy"}); r.status != http.StatusAccepted {
		t.Errorf("reject: %d", r.status)
	}
	b.until("the end without a state", func() bool { return slices.Contains(b.states(other), "deleted ") })
}

func TestSharingIsToldWithoutDataToWhoeverAskedForIt(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.place(sim.CallPlan{Bundled: true})
	b.graph("POST", id+"/answer", map[string]any{
		"callbackUri": b.server.URL + "/calls/" + id, "acceptedModalities": []string{"audio"},
		"mediaConfig": map[string]string{"@odata.type": "#microsoft.graph.appHostedMediaConfig", "blob": b.blob(id)},
		"callOptions": map[string]any{"@odata.type": "#microsoft.graph.incomingCallOptions", "isContentSharingNotificationEnabled": true},
	})
	b.until("established with its roster", func() bool {
		return slices.ContainsFunc(b.heard(), func(n notification) bool { return len(n.Value) == 2 })
	})
	if err := call.Share(call.Participants()[1], true); err != nil {
		t.Fatal(err)
	}
	b.until("the session", func() bool {
		return slices.ContainsFunc(b.heard(), func(n notification) bool {
			v := n.Value[0]
			return v.ChangeType == "created" && strings.Contains(v.ResourceURL, id+"/contentsharingsessions/") && v.ResourceData == nil
		})
	})
}

func TestSomebodyWhoWaitsInTheLobbyTooLongIsNoLoss(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, id := b.establish(sim.CallPlan{Kind: sim.Conferred, DeletedWithoutData: true, Parties: []sim.Party{
		{Person: b.recorded(), Recorded: true, Lobby: true}, {Guest: "Somebody"},
	}})
	if err := call.TimeOutInLobby(call.Participants()[0]); err != nil {
		t.Fatal(err)
	}
	b.until("the end without a state", func() bool { return slices.Contains(b.states(id), "deleted ") })
	if got := call.Legs()[0].Result; got != sim.LobbyTimeout {
		t.Errorf("result %v", got)
	}
	for _, u := range call.Truth().Utterances {
		if u.MSI == call.Truth().Sources[0].MSI {
			t.Error("somebody was heard from the lobby")
		}
	}
}

func TestSomebodyWhoComesBackHasAnotherIDAndOtherSources(t *testing.T) {
	b := newBot(t, sim.Config{})
	call, _ := b.establish(sim.CallPlan{Kind: sim.Conferred})
	first := call.Participants()[0]
	if err := call.Leave(first); err != nil {
		t.Fatal(err)
	}
	second, err := call.Join(sim.Party{Person: b.recorded(), Recorded: true})
	if err != nil {
		t.Fatal(err)
	}
	legs, sources := call.Legs(), call.Truth().Sources
	if len(legs) != 2 || legs[0].State != "terminated" || legs[1].Observed != second || second == first {
		t.Errorf("legs %+v", legs)
	}
	if last := sources[len(sources)-1]; sources[0].MSI == last.MSI || sources[0].To.IsZero() || !last.To.IsZero() {
		t.Errorf("sources %+v", sources)
	}
}
