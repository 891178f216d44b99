package main

import (
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/evidence"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/sim"
	"steno/tests/sim/gateway"
)

// live is the whole bot, media path included, in a simulated tenant with a gateway.
type live struct {
	*recorder
	tenant  *sim.Tenant
	gateway *gateway.Gateway
	blobs   storetest.Blobs
	tails   storetest.Tails
	keys    storetest.Keys
}

func newLive(t *testing.T) *live {
	t.Helper()
	l := &live{tenant: sim.New(sim.Config{Seed: 7, Tenant: testTenant, Messages: -1})}
	r := &recorder{teamsStub: newTeams(t), drain: make(chan struct{}), over: make(chan error, 1), log: &syncBuffer{}}
	l.recorder = r
	graph := secure(t, l.tenant.Handler())
	dir := t.TempDir()
	var err error
	if l.gateway, err = gateway.Start(gateway.Config{TokenFile: filepath.Join(dir, "token")}); err != nil {
		t.Fatal(err)
	}
	writeCertificate(t, dir)
	public, local := listen(t), listen(t)
	r.url, r.health, r.client = "https://"+public.Addr().String()+"/steno", "http://"+local.Addr().String(), authority.Client()
	r.environ = append(r.environment(dir), "STENO_BOT_PUBLIC_URL=https://"+public.Addr().String(), "STENO_GRAPH_URL="+graph.URL+"/v1.0",
		"STENO_GATEWAY_URL="+l.gateway.URL(), "STENO_CALLING_ISSUER="+graph.URL+sim.OpenIDConfigurationPath)
	s, _, err := readSettings(r.environ)
	if err != nil {
		t.Fatal(err)
	}
	if r.bot, err = newBot(s, adapters{
		credential: credential{}, queue: r.teamsStub, roster: noRoster{}, openMedia: openMedia,
		evidence: evidence.Config{Blobs: &l.blobs, Tails: &l.tails, Keys: &l.keys, Vault: storetest.NewVault(), VaultHosts: []string{storetest.VaultHost}},
	}, slog.New(slog.NewTextHandler(r.log, nil))); err != nil {
		t.Fatal(err)
	}
	err = l.tenant.Calls().Register(sim.Recorder{
		App: testApp, Instance: "832899f8-2ea1-4604-8413-27bd2892079f", Webhook: r.url + "/incoming", Client: authority.Client(), Gateways: []*gateway.Gateway{l.gateway},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cut := context.WithCancel(context.Background())
	r.cut = cut
	go func() { r.over <- r.bot.serveOn(ctx, r.drain, public, local) }()
	t.Cleanup(func() {
		l.tenant.Calls().Close()
		cut()
		if err := <-r.over; err != nil {
			t.Error(err)
		}
		if err := l.gateway.Close(); err != nil {
			t.Log(err)
		}
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	r.until("ready", func() bool { return r.get(r.health+"/readyz") == http.StatusOK })
	return l
}

func (l *live) place(plan sim.CallPlan) *sim.Call {
	l.t.Helper()
	plan.Parties[0].Person = l.tenant.UsersIn(sim.RecordedEquities)[0]
	c, err := l.tenant.Calls().Place(plan)
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// statuses are what the participants of a call's first leg were told.
func statuses(c *sim.Call) []string {
	var out []string
	for _, s := range c.Legs()[0].Statuses {
		out = append(out, s.Status)
	}
	return out
}

// ended waits for the notice that a call's leg is over.
func (l *live) ended(c *sim.Call, n int) conversation.LegNotice {
	l.t.Helper()
	leg := conversation.LegOf(teams.TenantID(testTenant), teams.CallID(c.Legs()[n].ID))
	var found conversation.LegNotice
	l.until("the ended notice", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		i := slices.IndexFunc(l.notices, func(n conversation.LegNotice) bool { return n.Leg == leg && n.Kind == conversation.LegEnded })
		if i >= 0 {
			found = l.notices[i]
		}
		return i >= 0
	})
	return found
}

func (l *live) recording(c *sim.Call) {
	l.t.Helper()
	l.until("recording", func() bool {
		legs := l.bot.legs.List()
		return slices.ContainsFunc(c.Legs(), func(i sim.LegInfo) bool {
			for _, s := range legs {
				if string(s.Call) == i.ID && s.Recording {
					return true
				}
			}
			return false
		})
	})
}

func TestCallsOfATenantAreRecordedHoweverTeamsTellsThem(t *testing.T) {
	three := func() []sim.Party {
		return []sim.Party{{Recorded: true}, {Phone: "+4930123456"}, {Guest: "Somebody"}}
	}
	for name, plan := range map[string]sim.CallPlan{
		"a meeting":                   {Parties: three()},
		"a call of two":               {Parties: three()[:2]},
		"disorder":                    {Parties: three(), Disorder: true},
		"roster beside established":   {Parties: three(), Bundled: true},
		"codes as text":               {Parties: three(), TextCodes: true},
		"an end without data":         {Parties: three(), DeletedWithoutData: true},
		"a phantom beside the invite": {Parties: three()[:2], Phantom: true},
		"a call that rings":           {Parties: three()[:2], Ringing: 500 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLive(t)
			c := l.place(plan)
			l.recording(c)
			time.Sleep(700 * time.Millisecond) // of speech
			c.End()
			n := l.ended(c, 0)
			if n.Outcome != conversation.OutcomeRecorded || n.Bundles == 0 || n.Epoch.IsZero() {
				t.Fatalf("notice %+v", n)
			}
			if got := statuses(c); len(got) == 0 || got[0] != "recording" || slices.Contains(got, "failed") {
				t.Fatalf("statuses %v", got)
			}
			l.until("everything is in evidence", l.bot.media.Empty)
		})
	}
}

func TestAMissedCallIsEmptyAndNobodyIsAlarmed(t *testing.T) {
	l := newLive(t)
	c := l.place(sim.CallPlan{Parties: []sim.Party{{Recorded: true}, {Phone: "+4930123456"}}, Missed: true})
	n := l.ended(c, 0)
	if n.Outcome == conversation.OutcomeLost || strings.Contains(l.log.String(), "alarm=recording-lost") {
		t.Fatalf("notice %+v", n)
	}
}

func TestAKilledGatewayIsNoticedWithinSeconds(t *testing.T) {
	l := newLive(t)
	c := l.place(sim.CallPlan{Parties: []sim.Party{{Recorded: true}, {Phone: "+4930123456"}}})
	l.recording(c)
	l.gateway.Kill()
	begin := time.Now()
	l.until("the participants are told", func() bool { return slices.Contains(statuses(c), "failed") })
	if d := time.Since(begin); d > 10*time.Second {
		t.Fatalf("it took %s", d)
	}
	if n := l.ended(c, 0); n.Outcome != conversation.OutcomeLost || n.Bundles == 0 {
		t.Fatalf("notice %+v", n)
	}
}

func TestTwoRecordedUsersHaveTwoRecordings(t *testing.T) {
	l := newLive(t)
	second := l.tenant.UsersIn(sim.RecordedEquities)[1]
	c := l.place(sim.CallPlan{Parties: []sim.Party{{Recorded: true}, {Person: second, Recorded: true}}})
	l.until("two legs record", func() bool {
		n := 0
		for _, s := range l.bot.legs.List() {
			if s.Recording {
				n++
			}
		}
		return n == 2
	})
	c.End()
	a, b := l.ended(c, 0), l.ended(c, 1)
	if a.Leg == b.Leg || a.Chain != b.Chain || a.Outcome != conversation.OutcomeRecorded || b.Outcome != conversation.OutcomeRecorded {
		t.Fatalf("notices %+v and %+v", a, b)
	}
}

func TestASentNoticeLeavesNoFile(t *testing.T) {
	l := newLive(t)
	c := l.place(sim.CallPlan{Parties: []sim.Party{{Recorded: true}, {Phone: "+4930123456"}}})
	l.recording(c)
	c.End()
	l.ended(c, 0)
	l.until("the outbox is empty", func() bool {
		files, err := os.ReadDir(filepath.Join(l.bot.s.dir, "outbox"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files) == 0
	})
}
