package azure

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"steno/shared/conversation"
	"steno/shared/teams"
)

// literals takes a filter of ours apart as an OData reader would, and returns its
// three values.
func literals(t *testing.T, filter string) []string {
	t.Helper()
	var values []string
	rest := filter
	for i, lead := range []string{"PartitionKey eq ", " and RowKey ge ", " and RowKey lt "} {
		var ok bool
		if rest, ok = strings.CutPrefix(rest, lead+"'"); !ok {
			t.Fatalf("filter %q: comparison %d does not start with %q", filter, i, lead)
		}
		var value strings.Builder
		for {
			j := strings.IndexByte(rest, '\'')
			if j < 0 {
				t.Fatalf("filter %q: literal %d has no end", filter, i)
			}
			value.WriteString(rest[:j])
			rest = rest[j+1:]
			if !strings.HasPrefix(rest, "'") {
				break
			}
			value.WriteByte('\'')
			rest = rest[1:]
		}
		values = append(values, value.String())
	}
	if rest != "" {
		t.Fatalf("filter %q: %q follows the last literal", filter, rest)
	}
	return values
}

func FuzzFilterKeepsItsThreeLiterals(f *testing.F) {
	f.Add("partition", "a", "b")
	f.Add("'", "''", "' or PartitionKey ne '")
	f.Add("x' and RowKey ge 'y", "\x00", "'''")
	f.Fuzz(func(t *testing.T, partition, from, to string) {
		want := []string{partition, from, to}
		if got := literals(t, keyRange{partition, from, to}.filter()); !slices.Equal(got, want) {
			t.Errorf("filter of %q reads %q", want, got)
		}
	})
}

func TestKeysSortAsListingsGo(t *testing.T) {
	at := time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	var last string
	for _, start := range []time.Time{conversation.Latest, at.AddDate(1, 0, 0), at.Add(time.Millisecond), at, at.Add(-time.Hour), conversation.Earliest} {
		key := positionKey(conversation.Position{Start: start, ID: "a"})
		if key <= last || len(key) != 15 {
			t.Errorf("key %q of %s does not follow %q", key, start, last)
		}
		if b := positionKey(conversation.Position{Start: start, ID: "b"}); b <= after(key) {
			t.Errorf("key %q does not follow %q", b, after(key))
		}
		last = key
	}
	if invertedDay(at) <= invertedDay(at.AddDate(0, 0, 1)) || invertedDay(at) >= invertedDay(at.AddDate(0, 0, -1)) {
		t.Error("days do not sort newest first")
	}
}

func TestOnlyAFailedConditionIsAConflict(t *testing.T) {
	batch := func(code string) error {
		return errors.New(`{"odata.error":{"code":"` + code + `","message":{"lang":"en-US","value":"0:text"}}}`)
	}
	inner := func(code string) *azcore.ResponseError {
		body := "--changeset\r\nHTTP/1.1 409 Conflict\r\n\r\n" + batch(code).Error()
		return responseError(t, http.StatusAccepted, "", body)
	}
	for what, c := range map[string]struct {
		err  error
		want bool
	}{
		"row exists":                    {responseError(t, 409, "EntityAlreadyExists", ""), true},
		"another ETag":                  {responseError(t, 412, "UpdateConditionNotSatisfied", ""), true},
		"precondition without a code":   {responseError(t, 412, "", ""), true},
		"table being deleted":           {responseError(t, 409, "TableBeingDeleted", ""), false},
		"busy":                          {responseError(t, 503, "ServerBusy", ""), false},
		"row exists, in a transaction":  {inner("EntityAlreadyExists"), true},
		"another ETag in a transaction": {inner("UpdateConditionNotSatisfied"), true},
		"row gone, in a transaction":    {inner("ResourceNotFound"), false},
		"too large, in a transaction":   {inner("RequestBodyTooLarge"), false},
		"no answer":                     {errors.New("EntityAlreadyExists"), false},
	} {
		err := classify("write", c.err)
		if errors.Is(err, errConflict) != c.want {
			t.Errorf("%s: classified as %v", what, err)
		}
	}
	if err := classify("write", inner("RequestBodyTooLarge")); !strings.Contains(err.Error(), "RequestBodyTooLarge") {
		t.Errorf("the inner code is lost: %v", err)
	}
}

func TestRowsBeyondAPropertyAreRefused(t *testing.T) {
	r := row{PartitionKey: "p", RowKey: "r", Data: make([]byte, maxData)}
	if _, err := r.marshal(); err != nil {
		t.Errorf("%d bytes: %v", maxData, err)
	}
	r.Data = append(r.Data, 0)
	if _, err := r.marshal(); err == nil {
		t.Errorf("%d bytes were taken", len(r.Data))
	}
}

func TestTransactionOfTwoPartitionsIsRefused(t *testing.T) {
	b := batch{partition: "a"}
	b.add("add", row{PartitionKey: "b", RowKey: "r"}, "")
	if err := b.submit(t.Context(), nil); err == nil {
		t.Error("submitted")
	}
}

func object(versions int) conversation.Object {
	o := conversation.Object{Name: "name", Custodian: "person", ClaimedAt: time.Date(2026, 3, 14, 9, 0, 0, 123456789, time.UTC)}
	for i := range versions {
		o.Versions = append(o.Versions, conversation.Version{
			VersionKey: conversation.VersionKey{Message: teams.MessageID(strings.Repeat("7", i%64)), ETag: teams.ETag(strings.Repeat("e", i%3))},
			Sent:       time.UnixMilli(int64(i) - 10).UTC(), SHA256: [32]byte{byte(i)},
		})
	}
	return o
}

func TestPackedObjectsAreUnpackedAsTheyWere(t *testing.T) {
	for _, n := range []int{0, 1, 50, 500} {
		o := object(n)
		b, err := packObject(o)
		if err != nil {
			t.Fatal(err)
		}
		got, err := unpackObject(o.Name, b)
		if err != nil || got.Custodian != o.Custodian || !got.ClaimedAt.Equal(o.ClaimedAt) || !slices.Equal(got.Versions, o.Versions) {
			t.Errorf("%d versions: %v", n, err)
		}
		if n == 50 && len(b) > 4500 {
			t.Errorf("50 versions take %d bytes", len(b))
		}
	}
}

func FuzzUnpack(f *testing.F) {
	b, err := packObject(object(3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{packVersion})
	f.Add([]byte{packVersion, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add([]byte(packVersionWithHead(`{"versions":1000000000}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := unpackObject("name", b)
		if err != nil {
			if !errors.Is(err, errPacked) {
				t.Errorf("error of no known kind: %v", err)
			}
			return
		}
		again, err := packObject(o)
		if err != nil {
			return // a time that JSON does not hold
		}
		if second, err := unpackObject("name", again); err != nil || !slices.Equal(second.Versions, o.Versions) {
			t.Errorf("packed again: %v", err)
		}
	})
}

func packVersionWithHead(head string) string {
	return string(append([]byte{packVersion, byte(len(head))}, head...))
}
