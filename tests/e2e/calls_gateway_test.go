package e2e_test

import (
	"crypto/sha256"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/tests/sim"
	"steno/tests/sim/gateway"
	"steno/tests/world"
)

func TestCallsOfAGatewayThatHangsDiesOrLiesAreLostOrUnattributedButNeverWrong(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	meeting := func() *sim.Call {
		call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{
			{Person: users[0], Recorded: true}, {Person: users[1], Recorded: true}, {Guest: "Visitor"},
		}})
		recording(t, call)
		talk(t, 4*time.Second)
		return call
	}
	hung := meeting()
	hungAt := time.Now()
	w.Bot.Gateway.Hang(true)
	terminated(t, hung)
	w.Bot.Gateway.Hang(false)
	readyAgain(t, w)
	killed := meeting()
	killedAt := time.Now()
	w.Bot.Gateway.Kill()
	terminated(t, killed)
	if err := w.Bot.ReplaceGateway(gateway.Config{MaxCalls: 10, Defects: []gateway.Defect{gateway.DefectWrongSource}}); err != nil {
		t.Fatal(err)
	}
	readyAgain(t, w)
	lying := meeting()
	lying.End()

	for name, call := range map[string]*sim.Call{"hangs": hung, "dies": killed} {
		until := map[string]time.Time{"hangs": hungAt, "dies": killedAt}[name]
		legs, manifests := sealed(t, w, a, log, call)
		for k, info := range call.Legs() {
			if legs[k].Outcome != conversation.OutcomeLost || legs[k].Reason != "gateway gone" {
				t.Errorf("gateway %s: leg is %s, %q, want lost", name, legs[k].Outcome, legs[k].Reason)
			}
			said(t, a, call, manifests[k], world.RecordedFrom(info).Add(world.Settle), until.Add(-100*time.Millisecond))
			if got := statuses(info); !slices.Equal(got, []string{"recording", "failed"}) {
				t.Errorf("gateway %s: the participants were told %q", name, got)
			}
		}
		if n := len(call.Participants()); n != 3 {
			t.Errorf("gateway %s: %d participants are left of 3", name, n)
		}
	}
	neverWrong(t, w, a, log, lying)
	for request, n := range w.Tenant.Counts().Requests {
		if strings.HasPrefix(request, "DELETE") && request != "DELETE /communications/calls/{id}" || request == "unknown" {
			t.Errorf("%d × %s: the recorder may leave, and nothing else", n, request)
		}
	}
}

// neverWrong checks a call of a gateway that puts wrong sources on packets: whatever it
// contradicts itself about is kept, under nobody's name.
func neverWrong(t *testing.T, w *world.World, a *world.Archive, log *lines, call *sim.Call) {
	t.Helper()
	speakers := map[[32]byte]string{}
	liars := map[string]bool{}
	truth := call.Truth()
	for _, u := range truth.Utterances {
		i := slices.IndexFunc(truth.Sources, func(s sim.SourcePeriod) bool { return s.Participant == u.Participant })
		p := truth.Sources[i].Party
		who := string(p.Person) + p.Guest
		liars[who] = u.MSI%7 == 3 // those whose source the gateway changes
		for _, packet := range u.Packets {
			speakers[sha256.Sum256(packet)] = who
		}
	}
	_, manifests := sealed(t, w, a, log, call)
	for _, m := range manifests {
		named, nobodys, wrong := 0, 0, 0
		err := a.Frames(t.Context(), m, func(f world.Frame) {
			who, sent := speakers[sha256.Sum256(f.Data)]
			switch {
			case !sent: // silence
			case f.Party == "" && liars[who]:
				nobodys++
			case f.Party == who && !liars[who]:
				named++
			default:
				wrong++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if wrong > 0 || nobodys < 100 || named < 100 {
			t.Errorf("leg %s: %d frames under a wrong name, %d under none, %d under the right one", m.Leg, wrong, nobodys, named)
		}
		t.Logf("leg %s: %d frames under no name, %d under the right one", m.Leg, nobodys, named)
	}
}

func statuses(info sim.LegInfo) (out []string) {
	for _, s := range info.Statuses {
		out = append(out, s.Status)
	}
	return out
}

// terminated waits until every leg of a call is over at Graph.
func terminated(t *testing.T, call *sim.Call) {
	t.Helper()
	eventually(t, 30*time.Second, "the end of the legs", func() bool {
		return !slices.ContainsFunc(call.Legs(), func(l sim.LegInfo) bool { return l.State != "terminated" })
	})
}

func readyAgain(t *testing.T, w *world.World) {
	t.Helper()
	eventually(t, 15*time.Second, "the recorder's readiness", func() bool {
		ready, err := w.Bot.Ready(t.Context())
		return ready && err == nil
	})
}

func TestOnALossyNetworkDecodedLengthIsWallTimeAndWhatIsMissingIsToldAsLost(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	w.Bot.Gateway.SetNetwork(gateway.Network{Loss: 0.05, Reorder: 0.02})
	users := recordedUsers(w)
	call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{
		{Person: users[0], Recorded: true}, {Person: users[1], Recorded: true}, {Guest: "Visitor"}, {Phone: "+493012345679"},
	}})
	recording(t, call)
	talk(t, 10*time.Second)
	w.Bot.Gateway.SetNetwork(gateway.Network{Loss: 0.5, Reorder: 0.1}) // more than can be repaired
	talk(t, 6*time.Second)
	call.End()
	legs, manifests := sealed(t, w, a, log, call)
	for k, m := range manifests {
		if legs[k].Outcome != conversation.OutcomeRecorded {
			t.Errorf("leg %s is %s: %s", m.Leg, legs[k].Outcome, legs[k].Reason)
		}
		wallTime(t, a, m)
		from, to := world.RecordedFrom(call.Legs()[k]).Add(world.Settle), legs[k].To.Add(-world.Settle)
		sent, missing, untold := explained(t, a, m, call.Truth(), from, to)
		if untold > 0 || sent < 1000 || missing == 0 {
			t.Errorf("leg %s: of %d frames sent %d are missing, %d of them without a gap that says so", m.Leg, sent, missing, untold)
		}
		once(t, a, m)
		t.Logf("leg %s: %d of %d frames are missing", m.Leg, missing, sent)
	}
}

// wallTime checks that each lane of speech lasts as long decoded as by the clock, unless
// the ledger says that its source was away.
func wallTime(t *testing.T, a *world.Archive, m conversation.Manifest) {
	t.Helper()
	lanes := m.Lanes()
	frames := make([][]world.Frame, len(lanes))
	err := a.Frames(t.Context(), m, func(f world.Frame) {
		f.Data = nil
		frames[f.Lane] = append(frames[f.Lane], f)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range lanes {
		if l.Kind != conversation.AudioTrack || l.Party == nil {
			continue
		}
		slices.SortFunc(frames[i], func(a, b world.Frame) int { return a.At.Compare(b.At) })
		end, holes := frames[i][0].At, time.Duration(0)
		for _, f := range frames[i] {
			away := slices.ContainsFunc(l.Gaps, func(g conversation.Gap) bool {
				return !g.From.After(end.Add(gateway.TickLength)) && !g.To.Before(f.At.Add(-gateway.TickLength))
			})
			if hole := f.At.Sub(end); hole > 0 && !away {
				holes += hole
			}
			if after := f.At.Add(f.Duration); after.After(end) {
				end = after
			}
		}
		if holes > gateway.TickLength {
			t.Errorf("leg %s: a lane of %s is %s shorter decoded than by the clock", m.Leg, end.Sub(frames[i][0].At), holes)
		}
	}
}

// explained counts the frames sent in [from, to), those of them that are not in the
// archive, and those of these that no gap of their lane calls lost.
func explained(t *testing.T, a *world.Archive, m conversation.Manifest, truth sim.Truth, from, to time.Time) (sent, missing, untold int) {
	t.Helper()
	type one struct {
		party string
		sum   [32]byte
	}
	archived := map[one]bool{}
	err := a.Frames(t.Context(), m, func(f world.Frame) { archived[one{f.Party, sha256.Sum256(f.Data)}] = true })
	if err != nil {
		t.Fatal(err)
	}
	gaps := map[string][]conversation.Gap{}
	for _, l := range m.Lanes() {
		gaps[world.PartyOf(l)] = append(gaps[world.PartyOf(l)], l.Gaps...)
	}
	for _, u := range truth.Utterances {
		i := slices.IndexFunc(truth.Sources, func(s sim.SourcePeriod) bool { return s.Participant == u.Participant })
		p := truth.Sources[i].Party
		who := string(p.Person) + p.Guest + p.Phone
		for n, packet := range u.Packets {
			at := u.From.Add(time.Duration(n) * gateway.TickLength)
			if at.Before(from) || !at.Before(to) {
				continue
			}
			sent++
			if archived[one{who, sha256.Sum256(packet)}] {
				continue
			}
			missing++
			middle := at.Add(gateway.TickLength / 2)
			told := slices.ContainsFunc(gaps[who], func(g conversation.Gap) bool {
				return g.Kind == conversation.GapLost && !middle.Before(g.From) && middle.Before(g.To)
			})
			if !told {
				untold++
			}
		}
	}
	return sent, missing, untold
}
