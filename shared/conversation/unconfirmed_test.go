package conversation_test

import (
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/teams"
)

func TestWhatOnlyANotificationBroughtIsFoundUnlessAnExportShowsIt(t *testing.T) {
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)
	key := func(message, etag string) conversation.VersionKey {
		return conversation.VersionKey{Message: teams.MessageID(message), ETag: teams.ETag(etag)}
	}
	object := func(seq int, lane conversation.MessageLane, keys ...conversation.VersionKey) conversation.Object {
		o := conversation.Object{Name: "o", Lane: lane, Seq: seq, ClaimedAt: at.Add(time.Duration(seq) * time.Minute)}
		for _, k := range keys {
			o.Versions = append(o.Versions, conversation.Version{VersionKey: k})
		}
		return o
	}
	notified, export := conversation.LaneNotified, conversation.LaneExport
	s := conversation.Slice{
		Objects: []conversation.Object{
			object(0, notified, key("1", "100"), key("2", "200"), key("3", "300"), key("5", "500")),
			object(1, notified, key("1", "150"), key("3", "350"), key("4", "a")),
			object(2, export, key("1", "199"), key("4", "b"), key("5", "450")),
			object(3, notified, key("6", "600")),
		},
		Receipts: []conversation.Receipt{
			{Lane: export, Versions: []conversation.VersionKey{key("2", "200")}},
			{Lane: notified, Versions: []conversation.VersionKey{key("3", "350")}},
		},
	}
	got := s.Unconfirmed(at.Add(3 * time.Minute))
	want := []conversation.Unconfirmed{
		{VersionKey: key("1", "100"), Since: at, Superseded: true},
		{VersionKey: key("3", "300"), Since: at},                                    // a later one is no better confirmed
		{VersionKey: key("5", "500"), Since: at},                                    // what the export shows is older
		{VersionKey: key("1", "150"), Since: at.Add(time.Minute), Superseded: true}, //
		{VersionKey: key("3", "350"), Since: at.Add(time.Minute)},                   // another notification proves nothing
		{VersionKey: key("4", "a"), Since: at.Add(time.Minute), Superseded: true},   // by the order of capture
	}
	if !slices.Equal(got, want) {
		t.Errorf("unconfirmed are\n%+v, want\n%+v", got, want)
	}
	if young := s.Unconfirmed(at); len(young) != 0 {
		t.Errorf("unconfirmed before any export could show it: %+v", young)
	}
}
