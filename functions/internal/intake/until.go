package intake

import (
	"context"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
)

// until is the Retain Until under which a batch is stored: that of its custodian's desks on
// the conversation's day. Another custodian's may be longer; function retention moves the
// date on then.
func (in *Intake) until(ctx context.Context, h conversation.BatchHeader) (time.Time, error) {
	periods, err := in.PeriodsOf(ctx, h.Custodian, true)
	if err != nil {
		return time.Time{}, err
	}
	day := h.Conversation.Day()
	f := policy.Facts{
		Tenant: h.Tenant, Conversation: string(h.Conversation), Modality: string(conversation.Chat), Start: day, End: day.AddDate(0, 0, 1),
	}
	desks := policy.DesksAt(periods, h.Custodian, f.Start, f.End, in.config.History)
	f.Custodians = []policy.CustodianFacts{{Person: h.Custodian, Desks: desks}}
	return in.config.Policies.Decide(f).Until, nil
}
