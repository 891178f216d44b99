package storetest

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// Register is a catalog that keeps calls too.
type Register interface {
	conversation.Catalog
	conversation.Calls
}

// TestCalls checks the contract of conversation.Calls. open returns an empty register.
func TestCalls(t *testing.T, open func(t *testing.T) Register) {
	for _, c := range []struct {
		claim string
		check func(*testing.T, Register)
	}{
		{"a call that does not exist is empty", callEmpty},
		{"what was saved is read back, legs in the order of their ids", callReadBack},
		{"a save at an old revision changes nothing", callConflict},
		{"of first saves that race one wins", callRace},
		{"a listed call is found by time and by each of its recorded users", callListed},
		{"a leg that is not given stays", callKeeps},
	} {
		t.Run(c.claim, func(t *testing.T) { c.check(t, open(t)) })
	}
}

func makeCall(chain string, start time.Time) (conversation.Conversation, conversation.Leg) {
	key := conversation.CallKeyOf(catalogTenant, teams.ChainID(chain))
	call := teams.CallID("call-" + chain)
	conv := conversation.Conversation{
		ID: conversation.IDOf(key, start), Kind: teams.ThreadCall, Modality: conversation.Voice, Start: start, First: start, Last: start.Add(time.Minute),
		Custodians: []teams.PersonID{"11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"},
		Call:       &conversation.CallFacts{Chain: teams.ChainID(chain), Direction: conversation.PSTNIn, Numbers: []string{"+49 'x"}, Legs: 1},
	}
	return conv, conversation.Leg{Leg: conversation.LegOf(catalogTenant, call), Call: call, Started: start, State: conversation.LegRunning, Recorder: "r"}
}

func callEmpty(t *testing.T, c Register) {
	got, err := c.Call(t.Context(), conversation.CallKeyOf(catalogTenant, "none"))
	ok(t, err)
	if got.Revision != "" || len(got.Legs) != 0 || got.Conversation.ID != "" {
		t.Errorf("%+v", got)
	}
}

func callReadBack(t *testing.T, c Register) {
	conv, leg := makeCall("a", march)
	_, other := makeCall("b", march)
	ok(t, c.SaveCall(t.Context(), conversation.Call{}, conv, leg, other))
	got, err := c.Call(t.Context(), conv.ID.Thread())
	ok(t, err)
	if got.Conversation.ID != conv.ID || got.Conversation.Call.Numbers[0] != "+49 'x" || len(got.Legs) != 2 || got.Legs[0].Leg >= got.Legs[1].Leg || !got.Legs[0].Started.Equal(march) {
		t.Errorf("%+v", got)
	}
	if _, found := got.Leg(leg.Leg); !found {
		t.Error("the leg is not found by its id")
	}
	s, err := c.Slice(t.Context(), conv.ID)
	ok(t, err)
	if s.Revision != "" || len(s.Objects) != 0 {
		t.Errorf("a call is a chat slice as well: %+v", s)
	}
}

func callConflict(t *testing.T, c Register) {
	conv, leg := makeCall("a", march)
	ok(t, c.SaveCall(t.Context(), conversation.Call{}, conv, leg))
	was, err := c.Call(t.Context(), conv.ID.Thread())
	ok(t, err)
	conv.Versions = 1
	ok(t, c.SaveCall(t.Context(), was, conv))
	leg.State, conv.Versions = conversation.LegSealed, 2
	wantErr(t, "old revision", c.SaveCall(t.Context(), was, conv, leg), conversation.ErrConflict)
	wantErr(t, "no revision", c.SaveCall(t.Context(), conversation.Call{}, conv, leg), conversation.ErrConflict)
	got, err := c.Call(t.Context(), conv.ID.Thread())
	ok(t, err)
	if got.Conversation.Versions != 1 || got.Legs[0].State != conversation.LegRunning {
		t.Errorf("%+v", got)
	}
}

func callRace(t *testing.T, c Register) {
	var won atomic.Int32
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			conv, leg := makeCall("race", march.Add(time.Duration(i)*24*time.Hour)) // each believes in another day
			if c.SaveCall(t.Context(), conversation.Call{}, conv, leg) == nil {
				won.Add(1)
			}
		})
	}
	wait.Wait()
	if won.Load() != 1 {
		t.Errorf("%d won", won.Load())
	}
}

func callListed(t *testing.T, c Register) {
	conv, leg := makeCall("a", march.Add(time.Hour))
	ok(t, c.SaveCall(t.Context(), conversation.Call{}, conv, leg))
	ok(t, c.ListCall(t.Context(), conv))
	conv.Versions = 9
	ok(t, c.ListCall(t.Context(), conv))
	byTime, err := c.ByTime(t.Context(), march, march.Add(24*time.Hour), conversation.PageRequest{})
	ok(t, err)
	pages := []conversation.Page{byTime}
	for _, p := range conv.Custodians {
		page, err := c.ByPerson(t.Context(), p, march, march.Add(24*time.Hour), conversation.PageRequest{})
		ok(t, err)
		pages = append(pages, page)
	}
	for i, p := range pages {
		if len(p.Conversations) != 1 || p.Conversations[0].ID != conv.ID || p.Conversations[0].Versions != 9 || p.Conversations[0].Call == nil {
			t.Errorf("listing %d: %+v", i, p)
		}
	}
}

func callKeeps(t *testing.T, c Register) {
	conv, leg := makeCall("a", march)
	_, other := makeCall("b", march)
	ok(t, c.SaveCall(t.Context(), conversation.Call{}, conv, leg))
	was, err := c.Call(t.Context(), conv.ID.Thread())
	ok(t, err)
	ok(t, c.SaveCall(t.Context(), was, conv, other))
	got, err := c.Call(t.Context(), conv.ID.Thread())
	ok(t, err)
	if len(got.Legs) != 2 || !slices.ContainsFunc(got.Legs, func(l conversation.Leg) bool { return l.Leg == leg.Leg }) {
		t.Errorf("%+v", got.Legs)
	}
}
