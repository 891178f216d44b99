package teams_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"steno/shared/teams"
)

const guid = "aaaaaaaa-aaaa-4bbb-8ccc-aaaaaaaaaaaa"

func TestHostileIdentifiersAreRefusedWithoutBeingRepeated(t *testing.T) {
	for _, s := range []string{
		"", ".", "..", "../x", "a/b", `a\b`, "%2f", "%00", "a\x00b", "a b", "a\nb", "a\r\nX: y", "ü", "\xff", "a'b", `a"b`, "a?b", "a#b", "19:..@thread.v2",
		"canary/" + strings.Repeat("x", 10<<10),
	} {
		_, e1 := teams.ParseThreadID(s)
		_, e2 := teams.ParseMessageID(s)
		_, e3 := teams.ParseETag(s)
		_, e4 := teams.ParsePersonID(s)
		_, e5 := teams.ParseTenantID(s)
		_, e6 := teams.ParseGroupID(s)
		for i, err := range []error{e1, e2, e3, e4, e5, e6} {
			if !errors.Is(err, teams.ErrMalformed) || (len(s) > 2 && strings.Contains(err.Error(), s)) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%.40q as identifier %d: %v", s, i, err)
			}
		}
	}
	for s, limit := range map[string]int{"thread": teams.MaxThreadID, "message": teams.MaxVersion} {
		parse := func(n int) error {
			if s == "thread" {
				_, err := teams.ParseThreadID(strings.Repeat("x", n))
				return err
			}
			_, err := teams.ParseMessageID(strings.Repeat("x", n))
			return err
		}
		if parse(limit) != nil || parse(limit+1) == nil {
			t.Errorf("%s: limit %d is not kept", s, limit)
		}
	}
}

func TestGUIDsAreTakenInAnyCaseAndKeptInLower(t *testing.T) {
	if p, err := teams.ParsePersonID(strings.ToUpper(guid)); err != nil || p != guid {
		t.Errorf("%s, %v", p, err)
	}
	for _, s := range []string{guid[1:], guid + "a", "{" + guid[1:35] + "}", strings.ReplaceAll(guid, "-", "a"), "g" + guid[1:], guid[:8] + "_" + guid[9:]} {
		if p, err := teams.ParsePersonID(s); err == nil {
			t.Errorf("%q was taken as %s", s, p)
		}
	}
}

func TestKindIsReadFromTheShapeOfAThread(t *testing.T) {
	for s, want := range map[teams.ThreadID]teams.ThreadKind{
		"19:a_b@unq.gbl.spaces": teams.ThreadOneOnOne, "19:x@thread.v2": teams.ThreadGroup, "19:meeting_x@thread.v2": teams.ThreadMeeting,
		"19:x@thread.tacv2": teams.ThreadChannel, "19:x@thread.skype": teams.ThreadChannel, "48:notes": teams.ThreadOther, "": teams.ThreadOther,
	} {
		if got := s.Kind(); got != want {
			t.Errorf("%q is %s, want %s", s, got, want)
		}
		if _, err := teams.ParseThreadID(string(s)); s != "" && err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
}

func TestLogsShowPseudonymsThatCanBeJoined(t *testing.T) {
	var out bytes.Buffer
	const thread = teams.ThreadID("19:" + guid + "_b@unq.gbl.spaces")
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("m", slog.Any("person", teams.PersonID(guid)), slog.Any("thread", thread), slog.Any("nobody", teams.PersonID("")))
	}
	if strings.Contains(out.String(), guid) {
		t.Errorf("an id is shown: %s", out.String())
	}
	a, b := teams.PersonID(guid).LogValue(), teams.PersonID(guid).LogValue()
	if !a.Equal(b) || a.Equal(teams.PersonID("b").LogValue()) || a.Equal(teams.ThreadID(guid).LogValue()) || !strings.HasPrefix(a.String(), "person-") {
		t.Errorf("pseudonyms %s and %s", a, b)
	}
}
