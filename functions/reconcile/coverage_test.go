package reconcile_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/reconcile"
	"steno/shared/conversation"
	"steno/shared/coverage"
	"steno/shared/custody"
	"steno/shared/teams"
)

func TestEveryMomentInWhichSomebodyIsRecordedIsReadOrSaidNotToBe(t *testing.T) {
	o := newOffice(t)
	o.read(rita, 1, 5, 20)
	o.read(rita, 1, 20.5, 25)
	o.read(sven, 1, -3, 26)
	o.read(sven, 2, 0, 12)
	o.read(desk, 1, 13, 24)
	o.must(o.run())
	s := o.newest("2026-03-10")
	const hour = 3600
	wantCount(t, "Rita, recorded from six o'clock, half an hour unread", line(s, rita, coverage.Seconds), 18*hour, 17*hour+hour/2, 0, 0, hour/2)
	wantCount(t, "Sven, all day", line(s, sven, coverage.Seconds), 24*hour, 24*hour, 0, 0, 0)
	wantCount(t, "a team, recorded from noon", line(s, desk, coverage.Seconds), 12*hour, 11*hour, 0, 0, hour)
	if s.Second.Seconds != 12*hour || s.Second.Late != 0 {
		t.Errorf("second pass %+v", s.Second)
	}
	for _, l := range s.Lines {
		if l.Team != (l.Custodian == desk) || (l.Modality == coverage.Channels) != l.Team {
			t.Errorf("line of %s: %s, team %v", l.Custodian, l.Modality, l.Team)
		}
	}
	if i := slices.IndexFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "coverage" && a.Day == "2026-03-10" }); i < 0 {
		t.Errorf("nobody is told of what was not read: %v", o.alerts)
	}
	stated := o.events(custody.Stated)
	body, _, err := o.statements.Read(t.Context(), coverage.Stated{Day: "2026-03-10", Revision: 1})
	o.must(err)
	if want := fmt.Sprintf("sha256=%x", sha256.Sum256(body)); len(stated) != 1 || !strings.Contains(stated[0].Detail, want) || stated[0].Item != "coverage/2026-03-10/1" {
		t.Errorf("the log has %+v, want %s", stated, want)
	}
}

func TestALaterPassMakesASecondStatementAndWhatItFoundLateIsSaid(t *testing.T) {
	o := newOffice(t)
	for _, p := range []teams.PersonID{rita, sven, desk} {
		o.read(p, 1, -1, 25)
	}
	o.must(o.run())
	if s := o.newest("2026-03-10"); s.Revision != 1 || !s.Whole() {
		t.Errorf("revision %d, %+v", s.Revision, s.Totals)
	}
	o.now = night.Add(72 * time.Hour)
	w := conversation.Window{Tenant: tenant, Custodian: rita, From: today.Add(-time.Hour), To: today.Add(25 * time.Hour), Pass: 2}
	o.must(o.catalog.FinishWindow(t.Context(), conversation.WindowDone{Window: w, Returned: 9, New: 3, Late: 3, At: o.now}, nil))
	o.must(o.run())
	o.must(o.run()) // an hour's timer finds nothing due
	s := o.newest("2026-03-10")
	if s.Revision != 2 || s.Second.Late != 3 || s.Whole() {
		t.Errorf("revision %d, %+v", s.Revision, s.Second)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "second-pass" && a.Count == 3 }) {
		t.Errorf("nobody is told: %v", o.alerts)
	}
}

func TestTheCanaryIsMissedOnTheDayOnWhichItDoesNotSing(t *testing.T) {
	o := newOffice(t)
	o.config.Canary = "19:canary@thread.v2"
	o.now = night.Add(24 * time.Hour)
	key := conversation.KeyOf(tenant, o.config.Canary)
	id := conversation.IDOf(key, today)
	o.must(o.catalog.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conversation.Conversation{ID: id, Thread: o.config.Canary, Start: today.Add(time.Hour), Versions: 1}}))
	o.must(o.run())
	if a, b := o.newest("2026-03-10").Canary, o.newest("2026-03-11").Canary; a != coverage.CanaryAlive || b != coverage.CanaryMissing {
		t.Errorf("canary %s, then %s", a, b)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "canary" && a.Day == "2026-03-11" }) {
		t.Errorf("nobody is told: %v", o.alerts)
	}
}

func TestDyingAtAnyStepLosesNoAlertAndEndsInTheSameStatement(t *testing.T) {
	prepare := func() *office {
		o := newOffice(t)
		o.graph.call(1, 9, 30, rita, sven)
		o.recorded(1, sven, 9, 30)
		o.read(rita, 1, 0, 25)
		return o
	}
	whole := prepare()
	whole.must(whole.run())
	want := whole.newest("2026-03-10")
	for step := 0; ; step++ {
		o := prepare()
		o.deaths.left = step
		err := o.run()
		if o.deaths.left > 0 {
			if err != nil || step < 8 {
				t.Fatalf("%d steps: %v", step, err)
			}
			break
		}
		if err != nil && !errors.Is(err, errDied) {
			t.Fatalf("step %d: %v", step, err)
		}
		o.deaths.left = -1
		o.must(o.run())
		got := o.newest("2026-03-10")
		if !slices.EqualFunc(got.Totals, want.Totals, func(a, b coverage.Total) bool {
			return a.Expected == b.Expected && a.Failed == b.Failed && a.Captured == b.Captured
		}) {
			t.Errorf("step %d: %+v, want %+v", step, got.Totals, want.Totals)
		}
		if len(o.events(custody.GapFound)) == 0 || len(o.events(custody.Stated)) == 0 {
			t.Errorf("step %d: the trail has no gap, or no statement", step)
		}
		if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "capture-gap" }) {
			t.Errorf("step %d: nobody was told of the gap", step)
		}
		if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "coverage" }) {
			t.Errorf("step %d: nobody was told of the coverage", step)
		}
	}
}

func TestAVersionThatOnlyANotificationBroughtIsUnknownUntilAnExportReturnsIt(t *testing.T) {
	o := newOffice(t)
	const thread = teams.ThreadID("19:chat@thread.v2")
	id := conversation.IDOf(conversation.KeyOf(tenant, thread), today)
	version := func(message teams.MessageID, etag teams.ETag) conversation.Version {
		return conversation.Version{VersionKey: conversation.VersionKey{Message: message, ETag: etag}, Sent: today.Add(9 * time.Hour)}
	}
	claim := func(name string, lane conversation.MessageLane, versions ...conversation.Version) {
		was, err := o.catalog.Slice(t.Context(), id)
		o.must(err)
		conv := was.Conversation
		if was.Revision == "" {
			conv = conversation.Conversation{ID: id, Thread: thread, Start: today.Add(9 * time.Hour)}
		}
		conv.Objects++
		o.must(o.catalog.Claim(t.Context(), was, conversation.Claim{Conversation: conv, Add: &conversation.Object{
			Name: name, Custodian: rita, Lane: lane, ClaimedAt: today.Add(10 * time.Hour), Seq: conv.Objects - 1, Versions: versions,
		}}))
		o.must(o.catalog.FinishWindow(t.Context(), conversation.WindowDone{Window: conversation.Window{Tenant: tenant, Custodian: rita, From: today, To: today.Add(time.Millisecond * 2)}}, []conversation.Conversation{conv}))
	}
	// One message as it was first written, edited before the export came, and one that no export returns.
	claim("00000000000000000000000000000001", conversation.LaneNotified, version("1", "1"), version("2", "2"))
	claim("00000000000000000000000000000002", conversation.LaneExport, version("1", "5"))
	o.must(o.run())
	c := line(o.newest("2026-03-10"), rita, coverage.Versions)
	wantCount(t, "one of three that nobody confirmed", c, 3, 2, 0, 0, 1)
	if len(c.Reasons) != 1 || c.Reasons[0].Code != coverage.Unconfirmed {
		t.Errorf("reasons %v", c.Reasons)
	}
	if !slices.ContainsFunc(o.alerts, func(a reconcile.Alert) bool { return a.Name == "unconfirmed" && a.Count == 1 }) {
		t.Errorf("nobody is told: %v", o.alerts)
	}
}

func TestWhatGraphRefusesToShowHasFailedAndTheReasonIsNamed(t *testing.T) {
	o := newOffice(t)
	at := func(h int) time.Time { return today.Add(time.Duration(h) * time.Hour) }
	o.read(sven, 1, -1, 8)
	for _, f := range []struct{ from, to, status int }{{8, 12, 404}, {11, 14, 403}, {16, 18, 500}} {
		w := conversation.Window{Tenant: tenant, Custodian: sven, From: at(f.from).Add(-conversation.Resolution), To: at(f.to), Pass: 1}
		o.must(o.failures.SaveFailure(t.Context(), conversation.WindowFailed{Window: w, Status: f.status, Since: at(20), At: at(20)}))
	}
	o.must(o.run())
	const hour = 3600
	c := line(o.newest("2026-03-10"), sven, coverage.Seconds)
	wantCount(t, "eight hours read, eight refused", c, 24*hour, 8*hour, 0, 8*hour, 8*hour)
	for code, want := range map[coverage.Code]int64{coverage.MailboxMissing: 4 * hour, coverage.Refused: 2 * hour, coverage.Unreadable: 2 * hour, coverage.NotReadYet: 8 * hour} {
		if i := slices.IndexFunc(c.Reasons, func(r coverage.Reason) bool { return r.Code == code }); i < 0 || c.Reasons[i].Count != want {
			t.Errorf("%s: %v, want %d seconds", code, c.Reasons, want)
		}
	}
}

func TestEveryFileIsFetchedOrTheReasonIsNamed(t *testing.T) {
	o := newOffice(t)
	o.config.Files = true
	const thread = teams.ThreadID("19:chat@thread.v2")
	id := conversation.IDOf(conversation.KeyOf(tenant, thread), today)
	conv := conversation.Conversation{ID: id, Thread: thread, Start: today.Add(9 * time.Hour), Objects: 1}
	o.must(o.catalog.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conv, Add: &conversation.Object{
		Name: "00000000000000000000000000000001", Custodian: rita, ClaimedAt: today,
	}}))
	o.must(o.catalog.FinishWindow(t.Context(), conversation.WindowDone{Window: conversation.Window{Tenant: tenant, Custodian: rita, From: today, To: today.Add(2 * time.Millisecond)}}, []conversation.Conversation{conv}))
	for reason, kind := range map[conversation.GapReason]conversation.AttachmentKind{
		"": conversation.KindFile, conversation.GapForeignHost: conversation.KindImage, conversation.GapNoFile: conversation.KindFile, conversation.GapExternal: conversation.KindFile,
		conversation.GapGone: conversation.KindLoop, conversation.GapTooLarge: conversation.KindFile, conversation.GapAltered: conversation.KindFile,
	} {
		state := conversation.AttachmentGap
		if reason == "" {
			state = conversation.AttachmentFetched
		}
		o.must(o.catalog.SaveAttachment(t.Context(), conversation.Attachment{
			ID: conversation.AttachmentIDOf(thread, "1", kind, string(reason)), Conversation: id, Message: "1", Custodian: rita, Kind: kind, State: state, Reason: reason, At: today,
		}))
	}
	_, err := o.catalog.ExpectAttachment(t.Context(), conversation.Attachment{
		ID: conversation.AttachmentIDOf(thread, "1", conversation.KindFile, "underway"), Conversation: id, Message: "1", Custodian: rita, Kind: conversation.KindFile, At: today,
	})
	o.must(err)
	o.must(o.run())
	c := line(o.newest("2026-03-10"), rita, coverage.Items)
	wantCount(t, "seven files and one under way", c, 8, 1, 2, 4, 1)
	for _, code := range []coverage.Code{coverage.ForeignLink, coverage.NoFile, coverage.FileForbidden, coverage.FileGone, coverage.FileTooLarge, coverage.FileUnreadable, coverage.Pending} {
		if !slices.ContainsFunc(c.Reasons, func(r coverage.Reason) bool { return r.Code == code && r.Count == 1 }) {
			t.Errorf("%s is not a reason: %v", code, c.Reasons)
		}
	}
}
