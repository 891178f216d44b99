package custody_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/storetest"
)

var at = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

func TestReceiptCoversOneItemForItsLifetime(t *testing.T) {
	log := custody.Log{Trail: new(storetest.Trail), Now: func() time.Time { return at }}
	for action, reads := range map[custody.Action]bool{
		custody.Read: true, custody.SystemRead: true, custody.List: false, custody.Denied: false, custody.RosterChange: false,
	} {
		r, err := log.Append(t.Context(), custody.Event{Action: action, System: "test", Item: "item"})
		if err != nil || r.Event() == "" {
			t.Fatalf("%s: %v", action, err)
		}
		for _, c := range []struct {
			item  string
			after time.Duration
			want  bool
		}{{"item", 0, reads}, {"item", custody.Lifetime - 1, reads}, {"item", custody.Lifetime, false}, {"other", 0, false}, {"", 0, false}} {
			err := r.Covers(c.item, at.Add(c.after))
			if (err == nil) != c.want || (err != nil && !errors.Is(err, custody.ErrReceipt)) {
				t.Errorf("%s of %q after %s: %v", action, c.item, c.after, err)
			}
		}
	}
	var zero custody.Receipt
	if err := zero.Covers("", at); !errors.Is(err, custody.ErrReceipt) || zero.Event() != "" {
		t.Errorf("the zero receipt covers: %v", err)
	}
}

type downTrail struct{ custody.Trail }

var errDown = errors.New("down")

func (downTrail) Insert(context.Context, custody.Record) error { return errDown }

func TestNoReceiptWithoutADurableEvent(t *testing.T) {
	r, err := custody.Log{Trail: downTrail{}}.Append(t.Context(), custody.Event{Action: custody.Read, Actor: "a", Item: "item"})
	if !errors.Is(err, errDown) || r.Covers("item", time.Now()) == nil {
		t.Errorf("append: %v", err)
	}
}

func TestEventThatNamesNobodyOrNothingIsRefused(t *testing.T) {
	trail := new(storetest.Trail)
	for what, e := range map[string]custody.Event{
		"no item":            {Action: custody.Read, Actor: "a"},
		"no action":          {Item: "item", Actor: "a"},
		"nobody":             {Action: custody.Read, Item: "item"},
		"a person and a job": {Action: custody.Read, Item: "item", Actor: "a", System: "s"},
	} {
		if r, err := (custody.Log{Trail: trail}).Append(t.Context(), e); err == nil || r.Event() != "" {
			t.Errorf("%s: %v", what, err)
		}
	}
	if got, err := trail.Range(t.Context(), time.Time{}, time.Now().Add(time.Hour), 10); err != nil || len(got) != 0 {
		t.Errorf("stored %v, %v", got, err)
	}
}

func TestTimeIsTheLogsAndIDsSortByIt(t *testing.T) {
	trail := new(storetest.Trail)
	var ids []string
	for i := range 100 {
		now := at.Add(time.Duration(i) * time.Microsecond).In(time.FixedZone("", 3600))
		log := custody.Log{Trail: trail, Now: func() time.Time { return now }}
		r, err := log.Append(t.Context(), custody.Event{At: at.AddDate(-9, 0, 0), Action: custody.Read, Actor: "a", Item: "item"})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, r.Event())
	}
	if !slices.IsSorted(ids) || len(slices.Compact(ids)) != 100 {
		t.Error("ids do not sort by time, or repeat")
	}
	got, err := trail.Range(t.Context(), at, at.Add(time.Second), 1000)
	if err != nil || len(got) != 100 || got[0].At.Location() != time.UTC {
		t.Errorf("%d records, %v", len(got), err)
	}
}
