package reconcile

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/msgraph"
	"steno/shared/policy"
	"steno/shared/teams"
)

const (
	// recent is how far back every run lists call records: longer than Teams lets a meeting
	// last (30 hours), and than records take to appear.
	recent = 3 * 24 * time.Hour
	// asking is how many call records are asked about at the same time.
	asking = 8
	// together is how close two sessions of a person are one stay: a change of device, or of
	// what is shared, begins a new session.
	together = 10 * time.Second
	// longestCall is how long before a stay the call it belongs to may have begun.
	longestCall = 36 * time.Hour
)

// harvest keeps what Graph says of calls in which recorded users took part. A run lists the
// records of the last days, and the first one of a day all that Graph still has. Calls without
// a recorded user are counted and not kept.
func (r *coverageRun) harvest(ctx context.Context) error {
	from, today := r.now.Add(-recent), r.now.Format(time.DateOnly)
	if r.state.Full != today {
		from = r.now.Add(-msgraph.CallRecordLife)
	}
	have, err := r.s.Records.Records(ctx, from, r.now)
	if err != nil {
		return err
	}
	before := map[string]coverage.CallRecord{}
	for _, h := range have {
		before[h.ID] = h
	}
	listed, err := r.s.Graph.CallRecords(ctx, from, r.now)
	if err != nil {
		return fmt.Errorf("harvest: %w", err)
	}
	news := slices.DeleteFunc(listed, func(l msgraph.CallRecord) bool {
		was, kept := before[l.ID]
		foreign, left := r.state.Foreign[l.ID]
		return kept && was.Version >= l.Version || left && foreign.Version >= l.Version
	})
	var mu sync.Mutex // of what follows, and of r.state
	kept, foreign := 0, 0
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(asking)
	for _, l := range news {
		group.Go(func() error {
			sessions, err := r.s.Graph.Sessions(gctx, l.ID)
			if err != nil {
				return fmt.Errorf("harvest: %w", err)
			}
			rec := coverage.CallRecord{ID: l.ID, Version: l.Version, Start: l.Start, End: l.End, Thread: l.Thread, SeenAt: r.now}
			rec.Stays = r.stays(sessions, before[l.ID].Stays)
			mu.Lock()
			defer mu.Unlock()
			if len(rec.Stays) == 0 {
				foreign++
				r.state.Foreign[l.ID] = foreignRecord{Version: l.Version, Start: l.Start}
				return nil
			}
			kept++
			return r.s.Records.SaveRecord(gctx, rec)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	r.state.Full = today
	r.log.InfoContext(ctx, "call records harvested", slog.Int("listed", len(listed)), slog.Int("new", len(news)), slog.Int("kept", kept), slog.Int("withoutRecordedUser", foreign))
	return nil
}

// stays joins sessions to the stays of recorded users, each within the time in which she was
// recorded. What is known of a stay that only grew is kept.
func (r *coverageRun) stays(sessions []msgraph.Session, before []coverage.Stay) []coverage.Stay {
	byPerson := map[teams.PersonID][]coverage.Stay{}
	for _, s := range sessions {
		for _, p := range s.People {
			if s.Start.After(s.End) {
				continue
			}
			for _, span := range policy.Covered(r.people(p), s.Start, cmp.Or(s.End, s.Start).Add(time.Millisecond)) {
				to := span.To
				if to.After(s.End) {
					to = s.End
				}
				byPerson[p] = append(byPerson[p], coverage.Stay{Person: p, From: span.From, To: to, With: other(s.People, p), Failed: s.Failed})
			}
		}
	}
	var out []coverage.Stay
	for _, list := range byPerson {
		slices.SortFunc(list, func(a, b coverage.Stay) int { return a.From.Compare(b.From) })
		joined := list[:1]
		for _, s := range list[1:] {
			last := &joined[len(joined)-1]
			if s.Failed != last.Failed || s.From.After(last.To.Add(together)) {
				joined = append(joined, s)
			} else if s.To.After(last.To) {
				last.To = s.To
			}
		}
		out = append(out, joined...)
	}
	for i := range out {
		for _, was := range before {
			if was.Person == out[i].Person && was.From.Equal(out[i].From) {
				out[i].Gap, out[i].Healed = was.Gap, was.Healed
			}
		}
	}
	slices.SortFunc(out, func(a, b coverage.Stay) int { return cmp.Or(cmp.Compare(a.Person, b.Person), a.From.Compare(b.From)) })
	return out
}

// other is the other person of a session of two, empty if there is none.
func other(people []teams.PersonID, p teams.PersonID) teams.PersonID {
	for _, o := range people {
		if o != p {
			return o
		}
	}
	return ""
}

// people are the periods in which a person's calls were to be recorded; a team has none.
func (r *coverageRun) people(p teams.PersonID) []policy.Period {
	return slices.DeleteFunc(slices.Clone(r.periods[p]), func(x policy.Period) bool { return x.Role != policy.RecordedUser })
}

// judge says of every stay that is not settled what became of it. A capture gap stays open for
// as long as Graph has the record: a recording may come late.
func (r *coverageRun) judge(ctx context.Context) error {
	records, err := r.s.Records.Records(ctx, r.now.Add(-msgraph.CallRecordLife-longestCall), r.now)
	if err != nil {
		return err
	}
	recordings := &recordings{run: r, byPerson: map[teams.PersonID][]conversation.Conversation{}, calls: map[conversation.ID]conversation.Call{}}
	var gaps, healed int64
	var judged []coverage.CallRecord
	for _, rec := range records {
		changed := false
		for i := range rec.Stays {
			s := &rec.Stays[i]
			if s.State == coverage.Captured || s.State == coverage.Excluded {
				continue
			}
			v, err := r.verdict(ctx, *s, rec.Thread, recordings)
			if err != nil {
				return err
			}
			if v == s.Verdict {
				continue
			}
			if v.State == coverage.Failed && s.State != coverage.Failed {
				gaps++
				err = r.note(ctx, custody.GapFound, rec, *s, v)
			} else if !v.Healed.IsZero() && s.Healed.IsZero() {
				healed++
				err = r.note(ctx, custody.GapHealed, rec, *s, v)
			}
			if err != nil {
				return err
			}
			s.Verdict, changed = v, true
		}
		if changed {
			judged = append(judged, rec)
		}
	}
	if gaps > 0 {
		r.alerts = append(r.alerts, Alert{Name: "capture-gap", Count: gaps, Text: "Recorded users were in calls of which there is no recording, or not a whole one. The custody trail names them."})
	}
	if healed > 0 {
		r.log.InfoContext(ctx, "capture gaps healed", slog.Int64("gaps", healed))
	}
	r.alert(ctx) // before the register knows that it was
	for _, rec := range judged {
		if err := r.s.Records.SaveRecord(ctx, rec); err != nil {
			return err
		}
	}
	return nil
}

// verdict is what the recordings and the rules say of a stay.
func (r *coverageRun) verdict(ctx context.Context, s coverage.Stay, thread teams.ThreadID, have *recordings) (coverage.Verdict, error) {
	list, err := have.around(ctx, s)
	if err != nil {
		return coverage.Verdict{}, err
	}
	v := r.c.Tolerance.Judge(s, thread, list, r.now)
	if v.State != coverage.Failed || v.Code != coverage.NoRecording {
		return v, nil
	}
	// Somebody who is never recorded is not invited for, so nothing is left behind.
	periods, err := r.s.Roster.PeriodsOf(ctx, s.Person)
	if err != nil {
		return v, fmt.Errorf("read roster: %w", err)
	}
	if policy.RuleFor(r.c.Groups, periods, s.From).When == policy.WhenNever {
		return coverage.Verdict{State: coverage.Excluded, Code: coverage.RuleNever, Gap: s.Gap, Healed: s.Healed}, nil
	}
	return v, nil
}

// note puts a capture gap, or its end, on record.
func (r *coverageRun) note(ctx context.Context, action custody.Action, rec coverage.CallRecord, s coverage.Stay, v coverage.Verdict) error {
	item := "callrecord/" + rec.ID
	if v.Conversation != "" {
		item = string(v.Conversation)
	}
	_, err := r.s.Trail.Append(ctx, custody.Event{
		Tenant: r.c.Tenant, Action: action, System: system, Item: item, Reason: string(v.Code),
		Detail: fmt.Sprintf("person=%s from=%s to=%s missing=%s", s.Person, s.From.Format(time.RFC3339), s.To.Format(time.RFC3339), v.Missing.Round(time.Second)),
	})
	return err
}

// recordings finds what the recorder left, and remembers it for a run.
type recordings struct {
	run      *coverageRun
	byPerson map[teams.PersonID][]conversation.Conversation
	calls    map[conversation.ID]conversation.Call
}

// around returns the legs of a person's calls at the time of a stay. It costs a query a person
// and one for each call, once a run.
func (h *recordings) around(ctx context.Context, s coverage.Stay) ([]coverage.Recording, error) {
	list, ok := h.byPerson[s.Person]
	if !ok {
		from := h.run.now.Add(-msgraph.CallRecordLife - 2*longestCall)
		page := conversation.PageRequest{}
		for {
			got, err := h.run.s.Catalog.ByPerson(ctx, s.Person, from, h.run.now.Add(time.Hour), page)
			if err != nil {
				return nil, err
			}
			for _, c := range got.Conversations {
				if c.Call != nil && c.Disposed == nil {
					list = append(list, c)
				}
			}
			if !got.More {
				break
			}
			page.After = got.Conversations[len(got.Conversations)-1].Position()
		}
		h.byPerson[s.Person] = list
	}
	slack := h.run.c.Tolerance.Clock
	var out []coverage.Recording
	for _, c := range list {
		if c.Start.After(s.To.Add(slack)) || c.Start.Before(s.From.Add(-longestCall)) || !c.Call.Running && c.Last.Before(s.From.Add(-slack)) {
			continue
		}
		call, ok := h.calls[c.ID]
		if !ok {
			var err error
			if call, err = h.run.s.Recorded.Call(ctx, c.ID.Thread()); err != nil {
				return nil, err
			}
			h.calls[c.ID] = call
		}
		var parties []string
		for _, p := range call.Conversation.Participants {
			parties = append(parties, p.ID)
		}
		for _, l := range call.Legs {
			out = append(out, coverage.Recording{Conversation: c.ID, Thread: call.Conversation.Thread, Parties: parties, Leg: l})
		}
	}
	return out, nil
}
