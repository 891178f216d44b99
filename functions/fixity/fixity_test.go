package fixity_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/fixity"
	"steno/shared/custody"
)

func TestIntactEvidenceIsReadAndRaisesNoAlarm(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(20)
	manifest, packs := r.leg("call-1")
	r.run()
	r.run()
	r.wantAlarms()
	for _, n := range append(append(names, manifest), packs...) {
		if r.blobs.reads[n] == 0 {
			t.Errorf("%s was not read", n)
		}
	}
	r.now = r.now.Add(24 * time.Hour)
	r.run()
	days := r.records(custody.FixityDay)
	if len(days) != 1 || days[0].Item != start.Format(time.DateOnly) || !strings.Contains(days[0].Detail, "alarms=0") || strings.Contains(days[0].Detail, "objects=0") {
		t.Errorf("summaries %+v", days)
	}
}

func TestChangedMissingAndUnreadableEvidenceIsAnAlarmInTheRunThatFindsIt(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(8)
	manifest, packs := r.leg("call-1")
	r.flip(names[2])
	r.blobs.Remove(names[4])
	r.blobs.bad[names[6]] = 1000
	r.flip(packs[1])
	r.run()
	r.wantAlarms(short(names[2])+": changed", short(names[4])+": missing", short(names[6])+": unreadable", short(packs[1])+": changed")
	_ = manifest
}

// TestAnAlarmIsRaisedWithinTheHour: damage to any one of what one run reads is named
// within four runs, a quarter of an hour apart.
func TestAnAlarmIsRaisedWithinTheHourOfBeingReadOrSealed(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(5)
	r.flip(names[4]) // changed right after it was sealed
	damaged := r.now
	for len(r.alarms()) == 0 {
		if r.now.Sub(damaged) > time.Hour {
			t.Fatal("no alarm within the hour")
		}
		r.run()
	}
	r.wantAlarms(short(names[4]) + ": changed")
}

func TestWhatWasDisposedOfIsNoAlarmAndEverythingElseThatIsMissingIs(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(4)
	for _, n := range names[:3] {
		r.blobs.Remove(n)
	}
	r.event(custody.Event{Action: custody.Dispose, Item: "unit-0"})
	r.event(custody.Event{Action: custody.Erase, Item: "unit-1"})
	r.event(custody.Event{Action: custody.Dispose, Item: "unit-3"})        // of another unit
	r.event(custody.Event{Action: custody.DisposeRefused, Item: "unit-2"}) // explains nothing
	r.run()
	r.run()
	r.wantAlarms(short(names[2]) + ": missing")
}

// TestADisposedCallIsNoAlarmWhileItIsUnderWayNorAfter: the record of the beginning names the call,
// which legs are not named by, and that of the end names the legs.
func TestADisposedCallIsNoAlarmWhileItIsUnderWayNorAfter(t *testing.T) {
	r := newRig(t, fixity.Config{})
	one, packs := r.leg("call-1")
	other, _ := r.leg("call-2")
	r.event(custody.Event{Action: custody.Dispose, Item: "the-call", Detail: "set=x ground=expiry units=1 keys=1"})
	begun := r.records(custody.Dispose)[0].ID
	for _, n := range append(packs, one, other) {
		r.blobs.Remove(n)
	}
	r.run()
	r.run()
	r.wantAlarms()
	unit := strings.Split(one, "/")[1]
	r.event(custody.Event{Action: custody.Disposed, Item: "the-call", Detail: "ground=expiry objects=3 event=" + begun + " units=leg-x," + unit + " keys="})
	r.run()
	r.wantAlarms(short(other) + ": missing")
}

func TestAManifestWhosePackIsGoneNamesThePack(t *testing.T) {
	r := newRig(t, fixity.Config{})
	_, packs := r.leg("call-1")
	manifest2, _ := r.leg("call-2")
	r.blobs.Remove(packs[0])
	r.flip(manifest2)
	r.run()
	r.wantAlarms(short(packs[0])+": missing", short(manifest2)+": changed")
	for _, e := range r.records(custody.SystemRead) {
		if e.System != "fixity" || !strings.HasPrefix(e.Item, "leg-") {
			t.Errorf("%+v", e)
		}
	}
	if len(r.records(custody.SystemRead)) == 0 {
		t.Error("a manifest was opened without an event")
	}
}

func TestASecondVersionIsAnAlarmEvenIfItsBytesAreRight(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(3)
	size, err := r.blobs.Blobs.Size(t.Context(), names[1])
	if err != nil {
		t.Fatal(err)
	}
	same, err := r.blobs.ReadAt(t.Context(), names[1], 0, size)
	if err != nil {
		t.Fatal(err)
	}
	r.blobs.Overwrite(names[1], same)
	r.run()
	r.wantAlarms(short(names[1]) + ": second-version")
}

func TestEverythingIsReadAgainWithinThePeriodWhateverTheBudget(t *testing.T) {
	const period = 10 * 24 * time.Hour
	r := newRig(t, fixity.Config{Period: period, Budget: 3000})
	names := r.batches(120)
	last := map[string]int{}
	for n := range 3 {
		for end := r.now.Add(period); r.now.Before(end); {
			r.run()
		}
		for _, name := range names {
			if r.blobs.reads[name] == last[name] {
				t.Errorf("period %d: %s was not read", n, name)
			}
			last[name] = r.blobs.reads[name]
		}
	}
	r.wantAlarms()
}

func TestARunReadsNoMoreThanItsBudgetAndAnObject(t *testing.T) {
	const budget = 3000
	r := newRig(t, fixity.Config{Budget: budget})
	names := r.batches(100)
	r.run()
	read := 0
	for _, n := range names {
		read += r.blobs.reads[n]
	}
	const sealed = 500 + 160 + 16
	if bytes := read * sealed; bytes > budget+2*sealed || read == 0 {
		t.Errorf("%d objects of %d bytes with a budget of %d", read, sealed, budget)
	}
}

func TestARoundThatIsNotDoneInTimeIsAnAlarm(t *testing.T) {
	r := newRig(t, fixity.Config{Period: 2 * time.Hour, Budget: 1})
	r.batches(40)
	for range 12 {
		r.run()
	}
	r.wantAlarms("fixity-round/: late")
}

func TestAFailureThatPassesIsNoAlarmAndStorageThatIsAwayIsAnError(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(12)
	r.blobs.bad[names[3]] = 1
	r.run()
	r.wantAlarms()
	if r.blobs.reads[names[3]] == 0 {
		t.Error("it was not tried again")
	}
	r = newRig(t, fixity.Config{})
	names = r.batches(12)
	r.blobs.down = true
	r.now = r.now.Add(15 * time.Minute)
	// Evidence does not answer, and neither does anything else of the account.
	stuck := &flaky{State: r.state}
	f := fixity.New(r.config, fixity.Stores{Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: r.events(), Objects: &r.blobs.Blobs, Catalog: &r.catalog, Calls: &r.catalog, State: stuck}, discard())
	if err := f.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "storage does not answer") {
		t.Errorf("%v", err)
	}
	r.wantAlarms()
	r.blobs.down = false
	r.run()
	for _, n := range names {
		if r.blobs.reads[n] == 0 {
			t.Errorf("%s was passed over while storage was away", n)
		}
	}
}

// flaky answers its first question and no other.
type flaky struct {
	fixity.State
	asked int
}

func (f *flaky) Head(ctx context.Context) ([]byte, string, error) {
	if f.asked++; f.asked > 1 {
		return nil, "", errStorage
	}
	return f.State.Head(ctx)
}

func TestProgressThatIsNotStoredIsMadeAgainAndNothingIsPassedOver(t *testing.T) {
	r := newRig(t, fixity.Config{Budget: 2000})
	names := r.batches(30)
	r.flip(names[29])
	for n := range 120 {
		r.now = r.now.Add(15 * time.Minute)
		r.sequence()
		fails := n%3 != 0
		if fails {
			r.state.fails = 1
		}
		if err := r.f.Run(t.Context()); (err != nil) != fails {
			t.Fatalf("run %d: %v", n, err)
		}
		r.f = r.fixity() // another process
	}
	for _, n := range names {
		if r.blobs.reads[n] == 0 {
			t.Errorf("%s was not read", n)
		}
	}
	r.wantAlarms(short(names[29]) + ": changed")
}

func TestTwoRunsAtOnceAreOneProgress(t *testing.T) {
	r := newRig(t, fixity.Config{})
	r.batches(5)
	r.now = r.now.Add(20 * time.Minute)
	moving := &overtaken{State: r.state, other: r.fixity()}
	f := fixity.New(r.config, fixity.Stores{Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: r.events(), Objects: &r.blobs.Blobs, Catalog: &r.catalog, Calls: &r.catalog, State: moving}, discard())
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !moving.done {
		t.Error("the other run never came between")
	}
	r.wantAlarms()
}

// overtaken lets another run come between reading and storing progress.
type overtaken struct {
	fixity.State
	other *fixity.Fixity
	done  bool
}

func (o *overtaken) SwapHead(ctx context.Context, body []byte, revision string) error {
	if !o.done {
		o.done = true
		if err := o.other.Run(ctx); err != nil {
			return err
		}
	}
	return o.State.SwapHead(ctx, body, revision)
}

func TestProgressThatCannotBeReadIsSaidAndNotOverwritten(t *testing.T) {
	r := newRig(t, fixity.Config{})
	if err := r.state.SwapHead(t.Context(), []byte(`{"format":"steno-fixity/9"}`), ""); err != nil {
		t.Fatal(err)
	}
	if err := r.f.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "steno-fixity/9") {
		t.Errorf("%v", err)
	}
}

func TestAnAlarmThatTheTrailDoesNotTakeFailsTheRun(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(3)
	r.flip(names[0])
	r.now = r.now.Add(15 * time.Minute)
	f := fixity.New(r.config, fixity.Stores{
		Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: custody.Log{Trail: mute{&r.trail}, Now: func() time.Time { return r.now }}, Objects: &r.blobs.Blobs, Catalog: &r.catalog, Calls: &r.catalog, State: r.state,
	}, discard())
	if err := f.Run(t.Context()); err == nil {
		t.Error("the run went well")
	}
	r.run()
	r.wantAlarms(short(names[0]) + ": changed")
}

// mute takes no events.
type mute struct{ custody.Trail }

func (mute) Insert(context.Context, custody.Record) error { return errStorage }

// rewritten is a trail in which somebody changed a row.
type rewritten struct {
	custody.Trail
	change func(r *custody.Record)
}

func (w rewritten) Range(ctx context.Context, from, to time.Time, limit int) ([]custody.Record, error) {
	records, err := w.Trail.Range(ctx, from, to, limit)
	for i := range records {
		records[i].Objects = slices.Clone(records[i].Objects)
		w.change(&records[i])
	}
	return records, err
}

func TestASealThatWasRewrittenToFitChangedEvidenceIsAnAlarm(t *testing.T) {
	r := newRig(t, fixity.Config{})
	names := r.batches(6)
	r.now = r.now.Add(2 * time.Hour)
	r.sequence()
	r.flip(names[3])
	forged := r.digest(names[3])
	trail := rewritten{&r.trail, func(rec *custody.Record) {
		if rec.Action == custody.Sealed && rec.Item == "unit-3" {
			rec.Objects[0].SHA256 = forged
		}
	}}
	f := fixity.New(r.config, fixity.Stores{
		Evidence: r.store, Versions: &r.blobs.Blobs, Tiles: &r.tiles, Trail: custody.Log{Trail: trail, Now: func() time.Time { return r.now }},
		Objects: &r.blobs.Blobs, Catalog: &r.catalog, Calls: &r.catalog, State: r.state,
	}, r.logger())
	if err := f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAlarms("unit-3/: record-altered")
}

func TestASealThatIsNotInTheLogAfterAnHourIsAnAlarm(t *testing.T) {
	r := newRig(t, fixity.Config{})
	r.batches(3)
	r.now = r.now.Add(30 * time.Minute)
	if err := r.f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAlarms()
	r = newRig(t, fixity.Config{})
	r.batches(3)
	r.now = r.now.Add(2 * time.Hour)
	if err := r.f.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.wantAlarms("custody-log/: not-logged")
}
