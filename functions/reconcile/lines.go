package reconcile

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/policy"
	"steno/shared/teams"
)

// reading is how many custodians, or conversations, are looked at at the same time.
const reading = 16

// statement works out the statement of a day up to a time.
func (r *coverageRun) statement(ctx context.Context, day, to time.Time) (coverage.Statement, error) {
	s := coverage.Statement{
		Format: coverage.Format, Tenant: r.c.Tenant, Day: day.Format(time.DateOnly), From: day, To: to,
		MadeAt: r.now, Maker: r.c.Maker, BlindSpots: r.blindSpots(), Lines: []coverage.Line{},
	}
	lines := &ledger{run: r, day: day, to: to, lines: map[lineKey]*coverage.Line{}}
	if err := lines.messages(ctx); err != nil {
		return s, err
	}
	second, err := lines.time(ctx)
	if err != nil {
		return s, err
	}
	if r.c.Calls {
		if err := lines.calls(ctx); err != nil {
			return s, err
		}
	}
	if s.Canary, err = r.canary(ctx, day); err != nil {
		return s, err
	}
	s.Second = second
	for _, l := range lines.lines {
		s.Lines = append(s.Lines, *l)
	}
	s.Sum()
	return s, nil
}

// blindSpots are those of every tenant, with what is known of this one.
func (r *coverageRun) blindSpots() []coverage.BlindSpot {
	out := slices.Clone(coverage.BlindSpots)
	for i := range out {
		if out[i].Code == coverage.PrivateChannels && !r.c.Migrated.IsZero() {
			out[i].Text += " That was on " + r.c.Migrated.UTC().Format(time.DateOnly) + "."
		}
	}
	return out
}

type lineKey struct {
	custodian teams.PersonID
	modality  coverage.Modality
	unit      coverage.Unit
}

// ledger fills the lines of a statement.
type ledger struct {
	run     *coverageRun
	day, to time.Time

	mu    sync.Mutex
	lines map[lineKey]*coverage.Line
}

// on calls change with a line, which is begun if it is new. A custodian who was not recorded
// on that day has none.
func (l *ledger) on(p teams.PersonID, m coverage.Modality, u coverage.Unit, change func(*coverage.Count)) {
	periods := l.run.periods[p]
	if len(periods) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	k := lineKey{p, m, u}
	if l.lines[k] == nil {
		desks := policy.DesksAt(periods, p, l.day, l.to.Add(-time.Nanosecond), l.run.c.History)
		l.lines[k] = &coverage.Line{Custodian: p, Team: isTeam(periods), Desks: append([]string{}, desks...), Modality: m, Unit: u}
	}
	change(&l.lines[k].Count)
}

func isTeam(periods []policy.Period) bool {
	return slices.ContainsFunc(periods, func(p policy.Period) bool { return p.Role == policy.RecordedTeam })
}

func written(periods []policy.Period) coverage.Modality {
	if isTeam(periods) {
		return coverage.Channels
	}
	return coverage.Chats
}

// time fills the lines of seconds: which of the moments in which somebody was recorded were
// read by a finished window. It costs a query for each custodian and pass.
func (l *ledger) time(ctx context.Context) (second coverage.SecondPass, err error) {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(reading)
	for p, periods := range l.run.periods {
		stretches := l.within(spans(periods, l.run.c.History, l.to))
		if len(stretches) == 0 {
			continue
		}
		group.Go(func() error {
			again, late, err := l.timeOf(gctx, p, written(periods), stretches)
			l.mu.Lock()
			second.Seconds, second.Late = second.Seconds+again, second.Late+late
			l.mu.Unlock()
			return err
		})
	}
	err = group.Wait()
	return second, err
}

// within cuts stretches down to the day.
func (l *ledger) within(stretches []policy.Span) (out []policy.Span) {
	for _, s := range stretches {
		if s.From.Before(l.day) {
			s.From = l.day
		}
		if s.To.After(l.to) {
			s.To = l.to
		}
		if s.From.Before(s.To) {
			out = append(out, s)
		}
	}
	return out
}

func (l *ledger) timeOf(ctx context.Context, p teams.PersonID, m coverage.Modality, stretches []policy.Span) (again, late int64, err error) {
	read := map[int][]conversation.WindowDone{}
	for pass := 1; pass <= conversation.MaxPass; pass++ {
		// A window may begin before the day and end behind it.
		done, err := l.run.s.Catalog.FinishedWindows(ctx, p, pass, l.day.Add(-conversation.MaxWindow), l.to.Add(conversation.MaxWindow))
		if err != nil {
			return 0, 0, err
		}
		if len(done) == 0 && pass > 1 {
			break
		}
		read[pass] = done
	}
	refused, err := l.run.s.Failures.FailuresOf(ctx, p)
	if err != nil {
		return 0, 0, err
	}
	var total, reread time.Duration
	missing := map[coverage.Code]time.Duration{}
	for _, s := range stretches {
		total += s.To.Sub(s.From)
		for _, part := range uncovered(s, read[1]) {
			explain(part, refused, missing)
		}
		if len(read[2]) > 0 {
			reread += s.To.Sub(s.From) - sum(uncovered(s, read[2]))
		}
	}
	for pass := 2; pass <= conversation.MaxPass; pass++ {
		for _, d := range read[pass] {
			if d.From.Before(l.to) && d.To.After(l.day) {
				late += int64(d.Late)
			}
		}
	}
	left := int64(total / time.Second)
	l.on(p, m, coverage.Seconds, func(c *coverage.Count) {
		for _, code := range slices.Sorted(maps.Keys(missing)) {
			// What is left of a second counts as missing.
			n := min(left, int64((missing[code]+time.Second-1)/time.Second))
			if left -= n; code == coverage.NotReadYet {
				c.Doubt(code, n)
			} else {
				c.Fail(code, n)
			}
		}
		c.Capture(left)
	})
	return int64(reread / time.Second), late, nil
}

// explain puts an unread stretch down to why it could not be read; what nothing explains was
// not read yet.
func explain(part policy.Span, refused []conversation.WindowFailed, missing map[coverage.Code]time.Duration) {
	for _, f := range refused {
		from, to := f.From.Add(conversation.Resolution), f.To
		if from.Before(part.From) {
			from = part.From
		}
		if to.After(part.To) {
			to = part.To
		}
		if !from.Before(to) || f.Pass == conversation.RetainedPass || f.Pass == conversation.LookbackPass {
			continue
		}
		missing[codeOf(f)] += to.Sub(from)
		explain(policy.Span{From: part.From, To: from}, refused, missing)
		explain(policy.Span{From: to, To: part.To}, refused, missing)
		return
	}
	if part.From.Before(part.To) {
		missing[coverage.NotReadYet] += part.To.Sub(part.From)
	}
}

// codeOf says why Graph did not let a window be read.
func codeOf(f conversation.WindowFailed) coverage.Code {
	switch f.Status {
	case http.StatusNotFound:
		return coverage.MailboxMissing
	case http.StatusPaymentRequired, http.StatusForbidden, http.StatusPreconditionFailed:
		return coverage.Refused
	}
	return coverage.Unreadable
}

// uncovered are the parts of a stretch that no finished window read.
func uncovered(s policy.Span, done []conversation.WindowDone) (out []policy.Span) {
	w := conversation.Window{From: s.From.Truncate(conversation.Resolution).Add(-conversation.Resolution), To: s.To.Truncate(conversation.Resolution)}
	if !w.From.Before(w.To) {
		return nil
	}
	for _, part := range w.Uncovered(done) {
		out = append(out, policy.Span{From: part.From.Add(conversation.Resolution), To: part.To})
	}
	return out
}

func sum(stretches []policy.Span) (d time.Duration) {
	for _, s := range stretches {
		d += s.To.Sub(s.From)
	}
	return d
}

// messages fills the lines of message versions and of files, from every conversation of the
// day. It costs a query a conversation, and another where files are fetched.
func (l *ledger) messages(ctx context.Context) error {
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(reading)
	err := l.each(ctx, func(c conversation.Conversation) {
		if c.Call == nil && c.Disposed == nil {
			group.Go(func() error {
				slice, err := l.run.s.Catalog.Slice(gctx, c.ID)
				if err != nil {
					return err
				}
				l.count(slice)
				if !l.run.c.Files {
					return nil
				}
				return l.files(gctx, c.ID)
			})
		}
	})
	if werr := group.Wait(); err == nil {
		err = werr
	}
	return err
}

// each lists the conversations of the day. Start is when the first message that was captured
// was sent, so it lies within the day that the id names.
func (l *ledger) each(ctx context.Context, take func(conversation.Conversation)) error {
	page := conversation.PageRequest{}
	for {
		got, err := l.run.s.Catalog.ByTime(ctx, l.day, l.day.AddDate(0, 0, 1), page)
		if err != nil {
			return err
		}
		for _, c := range got.Conversations {
			take(c)
		}
		if !got.More {
			return nil
		}
		page.After = got.Conversations[len(got.Conversations)-1].Position()
	}
}

// count adds a conversation's versions to the lines of everybody who received them.
func (l *ledger) count(s conversation.Slice) {
	received := map[teams.PersonID]map[conversation.VersionKey]bool{}
	note := func(p teams.PersonID, keys ...conversation.VersionKey) {
		if received[p] == nil {
			received[p] = map[conversation.VersionKey]bool{}
		}
		for _, k := range keys {
			received[p][k] = true
		}
	}
	for _, o := range s.Objects {
		for _, v := range o.Versions {
			note(o.Custodian, v.VersionKey)
		}
	}
	for _, rc := range s.Receipts {
		note(rc.Custodian, rc.Versions...)
	}
	open := map[conversation.VersionKey]bool{}
	for _, u := range s.Unconfirmed(l.run.now) {
		if !u.Superseded {
			open[u.VersionKey] = true
		}
	}
	for p, versions := range received {
		var doubtful int64
		for k := range versions {
			if open[k] {
				doubtful++
			}
		}
		l.on(p, written(l.run.periods[p]), coverage.Versions, func(c *coverage.Count) {
			c.Capture(int64(len(versions)) - doubtful)
			c.Doubt(coverage.Unconfirmed, doubtful)
		})
	}
}

// files adds what became of the files and images that the messages of a conversation point at.
func (l *ledger) files(ctx context.Context, id conversation.ID) error {
	results, err := l.run.s.Files.Attachments(ctx, id)
	if err != nil {
		return err
	}
	for _, a := range results {
		if !a.Kind.Elsewhere() {
			continue
		}
		l.on(a.Custodian, coverage.Files, coverage.Items, func(c *coverage.Count) {
			switch {
			case a.State == conversation.AttachmentExpected:
				c.Doubt(coverage.Pending, 1)
			case a.State == conversation.AttachmentFetched:
				c.Capture(1)
			case a.Reason == conversation.GapForeignHost:
				c.Exclude(coverage.ForeignLink, 1)
			case a.Reason == conversation.GapNoFile:
				c.Exclude(coverage.NoFile, 1)
			default:
				c.Fail(fileCode(a.Reason), 1)
			}
		})
	}
	return nil
}

// fileCode says why a file is missing.
func fileCode(r conversation.GapReason) coverage.Code {
	switch r {
	case conversation.GapExternal, conversation.GapForbidden, conversation.GapProtected:
		return coverage.FileForbidden
	case conversation.GapGone:
		return coverage.FileGone
	case conversation.GapTooLarge:
		return coverage.FileTooLarge
	}
	return coverage.FileUnreadable
}

// calls fills the lines of stays: those that Graph's call records name.
func (l *ledger) calls(ctx context.Context) error {
	records, err := l.run.s.Records.Records(ctx, l.day.Add(-longestCall), l.to)
	if err != nil {
		return err
	}
	for _, rec := range records {
		for _, s := range rec.Stays {
			if s.From.Before(l.day) || !s.From.Before(l.to) {
				continue
			}
			l.on(s.Person, coverage.Calls, coverage.Stays, func(c *coverage.Count) {
				switch s.State {
				case coverage.Captured:
					c.Capture(1)
				case coverage.Excluded:
					c.Exclude(s.Code, 1)
				case coverage.Failed:
					c.Fail(s.Code, 1)
				default:
					c.Doubt(coverage.Pending, 1)
				}
			})
		}
	}
	return l.unlisted(ctx, records)
}

// unlisted adds the recordings of the day of which Graph has no call record: evidence that
// nobody else vouches for. One that is young may get its record yet.
func (l *ledger) unlisted(ctx context.Context, records []coverage.CallRecord) error {
	matched := map[conversation.LegID]bool{}
	for _, rec := range records {
		for _, s := range rec.Stays {
			matched[s.Leg] = true
		}
	}
	var calls []conversation.Conversation
	if err := l.each(ctx, func(c conversation.Conversation) {
		if c.Call != nil && c.Disposed == nil {
			calls = append(calls, c)
		}
	}); err != nil {
		return err
	}
	for _, c := range calls {
		call, err := l.run.s.Recorded.Call(ctx, c.ID.Thread())
		if err != nil {
			return err
		}
		for _, leg := range call.Legs {
			if matched[leg.Leg] || leg.CopyOf != "" || leg.Outcome == conversation.OutcomeEmpty || leg.Started.Before(l.day) || !leg.Started.Before(l.to) || matchedNear(leg, records) {
				continue
			}
			l.on(leg.Recorded, coverage.Calls, coverage.Stays, func(count *coverage.Count) {
				switch {
				case leg.State == conversation.LegRunning:
					count.Doubt(coverage.Running, 1)
				case leg.Outcome == conversation.OutcomeExcluded:
					count.Exclude(coverage.RuleOther, 1)
				case leg.Outcome == conversation.OutcomeLost:
					count.Fail(coverage.RecordingLost, 1)
				default:
					count.Doubt(coverage.NoRecord, 1)
				}
			})
		}
	}
	return nil
}

// matchedNear reports whether a stay of the leg's person that is settled overlaps the leg: a
// stay names one leg of several, and none if nobody took the call.
func matchedNear(leg conversation.Leg, records []coverage.CallRecord) bool {
	for _, rec := range records {
		for _, s := range rec.Stays {
			known := s.Leg != "" || s.State == coverage.Excluded
			if s.Person == leg.Recorded && known && s.From.Before(leg.To) && leg.Started.Before(s.To) {
				return true
			}
		}
	}
	return false
}

// canary reports whether the thread that is written to each day has something of that day.
func (r *coverageRun) canary(ctx context.Context, day time.Time) (coverage.CanaryState, error) {
	if r.c.Canary == "" {
		return coverage.CanaryOff, nil
	}
	key := conversation.KeyOf(r.c.Tenant, r.c.Canary)
	slice, err := r.s.Catalog.Slice(ctx, conversation.IDOf(key, day))
	if err != nil {
		return "", err
	}
	if slice.Conversation.Versions > 0 {
		return coverage.CanaryAlive, nil
	}
	return coverage.CanaryMissing, nil
}
