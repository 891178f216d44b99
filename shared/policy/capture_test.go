package policy_test

import (
	"testing"
	"time"

	"steno/shared/policy"
)

func TestTheStateOfCaptureSaysWhatStandsInItsWayFirst(t *testing.T) {
	now := time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)
	open := []policy.Period{{Role: policy.RecordedUser, From: now.Add(-time.Hour)}}
	closed := []policy.Period{{Role: policy.RecordedUser, From: now.Add(-time.Hour), To: now}, {Role: policy.Auditor, From: now.Add(-time.Hour)}}
	team := []policy.Period{{Role: policy.RecordedTeam, From: now.Add(-time.Hour)}}
	fine := policy.Person{Enabled: true, CommunicationsDLP: true}
	everything := policy.Person{Guest: true, LostPlan: now, Deleted: now}
	for _, c := range []struct {
		person  policy.Person
		periods []policy.Period
		want    policy.CaptureState
	}{
		{fine, open, policy.CaptureActive},
		{fine, team, policy.CaptureActive},
		{policy.Person{Enabled: true}, open, policy.CaptureActive}, // never had the plan: a report, not a loss
		{policy.Person{Enabled: true, LostPlan: now}, open, policy.CaptureUnlicensed},
		{policy.Person{Enabled: true, Guest: true, LostPlan: now}, open, policy.CaptureGuest},
		{policy.Person{Guest: true}, open, policy.CaptureDisabled},
		{fine, closed, policy.CaptureLeft},
		{everything, open, policy.CaptureDeleted},
		{everything, closed, policy.CaptureDeleted},
		{fine, nil, policy.CaptureLeft},
	} {
		if got := policy.CaptureOf(c.person, c.periods, now); got != c.want {
			t.Errorf("%+v with %+v is %s, want %s", c.person, c.periods, got, c.want)
		}
	}
}
