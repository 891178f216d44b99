package notification_test

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"steno/shared/notification"
	"steno/shared/teams"
)

func TestResourcesAreNamedAsGraphNamesThem(t *testing.T) {
	const ann = teams.PersonID("aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa")
	for want, r := range map[string]notification.Resource{
		"/users/" + string(ann) + "/chats/getAllMessages": {Source: teams.Chats, Custodian: ann},
		"/chats/getAllMessages":                           {Source: teams.Chats},
		"/teams/getAllMessages":                           {Source: teams.Channels},
	} {
		if got := r.Path(); got != want || r.Wide() != (r.Custodian == "") {
			t.Errorf("%+v is %s, want %s", r, got, want)
		}
	}
}

func TestAClientStateIsDrawnAndOnlyItsDigestKept(t *testing.T) {
	state, digest := notification.NewState()
	second, _ := notification.NewState()
	b, err := base64.RawURLEncoding.DecodeString(state)
	if err != nil || len(b) != 32 || state == second {
		t.Errorf("states %q and %q: want 256 random bits each", state, second)
	}
	s := notification.Subscription{State: digest}
	if !s.KnowsState(state) || s.KnowsState(second) || s.KnowsState("") || s.KnowsState(string(digest)) || (notification.Subscription{}).KnowsState("") {
		t.Error("the wrong states are known")
	}
}

// TestRenewalsAreInGoodTimeAndSpread: about half of the life is left for outages, and never
// is one renewed twice within ten minutes.
func TestRenewalsAreInGoodTimeAndSpread(t *testing.T) {
	made := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	hours := map[int]int{}
	for i := range 500 {
		s := notification.Subscription{ID: fmt.Sprint("id-", i), Expires: made.Add(notification.Lifetime), Renewed: made}
		at := made
		for !s.Due(at) {
			at = at.Add(5 * time.Minute)
		}
		hours[int(at.Sub(made).Hours())]++
		if left := s.Expires.Sub(at); left < 35*time.Hour || left > 46*time.Hour {
			t.Fatalf("%s is renewed with %s left", s.ID, left)
		}
		s.Asked = made.Add(time.Minute)
		if s.Due(made.Add(9*time.Minute)) || !s.Due(made.Add(10*time.Minute)) {
			t.Fatal("a lifecycle event is answered at once, but not within ten minutes of the last renewal")
		}
		s.Renewed = made.Add(10 * time.Minute)
		if s.Due(made.Add(30 * time.Minute)) {
			t.Fatal("an event that was answered is answered again")
		}
	}
	for h, n := range hours {
		if n > 120 {
			t.Errorf("%d of 500 are renewed in hour %d", n, h)
		}
	}
	if notification.Lifetime > notification.MaxLifetime {
		t.Error("more is asked for than Graph gives")
	}
}
