package policy

import "time"

// CaptureState is whether and why a custodian can be captured, as far as the directory
// tells. Whether a mailbox or a team answers is known to conversation.Failures.
type CaptureState string

// The states of capture. Where several are true, the first of them stands.
const (
	CaptureDeleted    CaptureState = "deleted"    // exportable for teams.ExportableFor longer
	CaptureLeft       CaptureState = "left"       // in no group of recorded users any more
	CaptureDisabled   CaptureState = "disabled"   // the account is; what it receives is captured still
	CaptureGuest      CaptureState = "guest"      // at home in another tenant, which keeps the mailbox
	CaptureUnlicensed CaptureState = "unlicensed" // the plan that Microsoft asks for was there and is not
	CaptureActive     CaptureState = "active"
)

// CaptureOf is the state of a custodian with these periods, now.
func CaptureOf(p Person, periods []Period, now time.Time) CaptureState {
	recorded := false
	for _, period := range periods {
		recorded = recorded || period.Role.Custodian() && period.Covers(now)
	}
	switch {
	case !p.Deleted.IsZero():
		return CaptureDeleted
	case !recorded:
		return CaptureLeft
	case !p.Enabled:
		return CaptureDisabled
	case p.Guest:
		return CaptureGuest
	case !p.LostPlan.IsZero():
		return CaptureUnlicensed
	}
	return CaptureActive
}
