package azure_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	rosters "steno/shared/policy"
	"steno/shared/storetest"
	"steno/shared/teams"
	"steno/tests/local/azurite"
	"steno/tests/local/worm"
)

var (
	march = time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	ann   = teams.PersonID("aaaaaaaa-aaaa-4bbb-8ccc-aaaaaaaaaaaa")
)

func ops(pairs ...any) map[string]int64 {
	m := map[string]int64{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i].(string)] = int64(pairs[i+1].(int))
	}
	return m
}

func chat(tenant teams.TenantID, thread string, at time.Time) conversation.Conversation {
	id := teams.ThreadID("19:" + thread + "@thread.v2")
	return conversation.Conversation{
		ID: conversation.IDOf(conversation.KeyOf(tenant, id), at), Thread: id, Kind: id.Kind(), Modality: conversation.Chat,
		Start: at, First: at, Last: at, Versions: 1,
	}
}

func TestBlobAndKeyOperationsCostWhatTheyClaim(t *testing.T) {
	b, k, name := azure.NewBlobs(locked), azure.NewKeys(tables), evidence.NewObjectID()
	key := evidence.WrappedKey{Tenant: storetest.NewTenant(), Unit: "u", ID: evidence.NewObjectID()}
	costs(t, "create", ops(worm.OpPut, 1), func() error { return b.Create(t.Context(), name, []byte("body")) })
	costs(t, "size", ops(worm.OpHead, 1), func() error { _, err := b.Size(t.Context(), name); return err })
	costs(t, "read", ops(worm.OpGet, 1), func() error { _, err := b.ReadAt(t.Context(), name, 1, 2); return err })
	costs(t, "insert key", ops(azurite.OpTablePut, 1), func() error { return k.Insert(t.Context(), key) })
	costs(t, "get key", ops(azurite.OpTableGet, 1), func() error { _, err := k.Get(t.Context(), key.Tenant, key.Unit, key.ID); return err })
}

func TestWhatKeepingAndDisposingCosts(t *testing.T) {
	b, k, name := azure.NewBlobs(free), azure.NewKeys(tables), evidence.NewObjectID()
	ctx, tenant := t.Context(), storetest.NewTenant()
	body, until := []byte("body"), time.Now().Add(time.Hour)
	costs(t, "create until", ops(worm.OpPut, 1), func() error { return b.CreateUntil(ctx, name, body, until) })
	costs(t, "protection", ops(worm.OpHead, 1), func() error { _, err := b.Protection(ctx, name); return err })
	costs(t, "a date that stays", ops(worm.OpHead, 1), func() error { _, err := b.Protect(ctx, name, until); return err })
	costs(t, "a date that moves", ops(worm.OpHead, 1, worm.OpOther, 1), func() error { _, err := b.Protect(ctx, name, until.Add(time.Hour)); return err })
	costs(t, "list keys", ops(azurite.OpTableQuery, 1), func() error { _, err := k.List(ctx, tenant, "u"); return err })
	matters, dispositions := azure.NewMatters(tenant, tables), azure.NewDispositions(tenant, tables)
	costs(t, "list matters", ops(azurite.OpTableQuery, 1), func() error { _, err := matters.List(ctx); return err })
	costs(t, "list dispositions", ops(azurite.OpTableQuery, 1), func() error { _, err := dispositions.List(ctx); return err })
}

func TestCatalogOperationsCostWhatTheyClaim(t *testing.T) {
	tenant := storetest.NewTenant()
	c := azure.NewCatalog(tenant, tables)
	conv := chat(tenant, "a", march)
	query, transaction := azurite.OpTableQuery, azurite.OpTableTransaction
	o := &conversation.Object{Name: evidence.NewObjectID(), Custodian: ann, ClaimedAt: march}
	receipt := &conversation.Receipt{Custodian: ann, Window: "w", At: march}
	costs(t, "claim", ops(transaction, 1), func() error {
		return c.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conv, Add: o, Receipt: receipt})
	})
	costs(t, "slice", ops(query, 1), func() error { _, err := c.Slice(t.Context(), conv.ID); return err })
	done := conversation.WindowDone{Window: conversation.Window{Custodian: ann, From: march, To: march.Add(time.Hour), Pass: 1}}
	put := azurite.OpTablePut // a transaction of one row is sent as a plain write
	costs(t, "finish nothing", ops(put, 1), func() error { return c.FinishWindow(t.Context(), done, nil) })
	twoMonths := map[string]int64{transaction: 2, put: 1}
	costs(t, "finish two months", twoMonths, func() error {
		return c.FinishWindow(t.Context(), done, []conversation.Conversation{conv, chat(tenant, "b", march), chat(tenant, "c", march.AddDate(0, 1, 0))})
	})
	for n, want := range map[int]map[string]int64{99: {transaction: 2}, 100: {transaction: 2, put: 1}, 250: {transaction: 6}} {
		var touched []conversation.Conversation
		for i := range n {
			touched = append(touched, chat(tenant, fmt.Sprint("n", i), march))
		}
		costs(t, fmt.Sprint("finish ", n), want, func() error { return c.FinishWindow(t.Context(), done, touched) })
	}
	to := march.Add(time.Hour)
	costs(t, "finished windows", ops(query, 1), func() error {
		_, err := c.FinishedWindows(t.Context(), ann, 1, march, to)
		return err
	})
	costs(t, "by time, one month", ops(query, 1), func() error {
		_, err := c.ByTime(t.Context(), march, to, conversation.PageRequest{Limit: 5})
		return err
	})
	costs(t, "by time, three months", ops(query, 3), func() error {
		_, err := c.ByTime(t.Context(), march.AddDate(0, -2, 0), march, conversation.PageRequest{Limit: 5, After: conv.Position()})
		return err
	})
	costs(t, "by person", ops(query, 1), func() error {
		_, err := c.ByPerson(t.Context(), ann, march.AddDate(-5, 0, 0), to, conversation.PageRequest{Limit: 5})
		return err
	})
	costs(t, "by thread", ops(query, 1), func() error {
		_, err := c.ByThread(t.Context(), conv.ID.Thread(), conversation.PageRequest{Limit: 5})
		return err
	})
	costs(t, "save progress", ops(azurite.OpTablePut, 1), func() error {
		return c.SaveProgress(t.Context(), ann, conversation.Progress{})
	})
	costs(t, "progress", ops(query, 1), func() error { _, err := c.Progress(t.Context()); return err })
}

func TestRosterAndTrailOperationsCostWhatTheyClaim(t *testing.T) {
	tenant := storetest.NewTenant()
	r, trail := azure.NewRoster(tenant, tables), azure.NewTrail(tenant, tables)
	p := rosters.Period{Person: ann, Role: rosters.RecordedUser, Desk: "fx", From: march}
	change := rosters.Change{At: march, Opened: []rosters.Period{p}, People: []rosters.Person{{ID: ann}}}
	query, transaction := azurite.OpTableQuery, azurite.OpTableTransaction
	costs(t, "apply", ops(query, 1, transaction, 1), func() error { return r.Apply(t.Context(), change) })
	change.People = nil
	costs(t, "apply what is known", ops(query, 1), func() error { return r.Apply(t.Context(), change) })
	costs(t, "apply nothing", ops(), func() error { return r.Apply(t.Context(), rosters.Change{At: march}) })
	costs(t, "periods", ops(query, 1), func() error { _, err := r.Periods(t.Context(), rosters.RecordedUser); return err })
	costs(t, "periods of", ops(query, 1), func() error { _, err := r.PeriodsOf(t.Context(), ann); return err })
	costs(t, "few people", ops(azurite.OpTableGet, 1), func() error { _, err := r.People(t.Context(), []teams.PersonID{ann}); return err })
	costs(t, "many people", ops(query, 1), func() error {
		_, err := r.People(t.Context(), make([]teams.PersonID, 21))
		return err
	})
	costs(t, "insert record", ops(azurite.OpTablePut, 1), func() error {
		return trail.Insert(t.Context(), custody.Record{ID: "1", Event: custody.Event{At: march}})
	})
	costs(t, "range of three days", ops(query, 3), func() error {
		_, err := trail.Range(t.Context(), march, march.AddDate(0, 0, 2), 10)
		return err
	})
	if _, err := trail.Range(t.Context(), time.Time{}, march, 10); err == nil {
		t.Error("a range of two thousand years was taken")
	}
}

func TestSliceOfMoreThanAThousandRowsIsReadWhole(t *testing.T) {
	const objects = 1050
	tenant := storetest.NewTenant()
	c, table := azure.NewCatalog(tenant, tables), tables.NewClient(azure.TableConversations)
	conv := chat(tenant, "a", march)
	if err := c.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conv}); err != nil {
		t.Fatal(err)
	}
	var actions []aztables.TransactionAction
	for i := range objects {
		data, err := azure.PackObject(conversation.Object{Custodian: ann, ClaimedAt: march})
		if err != nil {
			t.Fatal(err)
		}
		entity, err := json.Marshal(map[string]any{
			"PartitionKey": string(tenant) + "-" + string(conv.ID.Thread()), "RowKey": azure.InvertedDay(march) + "-o-" + evidence.NewObjectID(),
			"Data@odata.type": "Edm.Binary", "Data": data,
		})
		if err != nil {
			t.Fatal(err)
		}
		actions = append(actions, aztables.TransactionAction{ActionType: aztables.TransactionTypeAdd, Entity: entity})
		if len(actions) == 100 || i == objects-1 {
			if _, err := table.SubmitTransaction(t.Context(), actions, nil); err != nil {
				t.Fatal(err)
			}
			actions = nil
		}
	}
	costs(t, "slice", ops(azurite.OpTableQuery, 2), func() error {
		s, err := c.Slice(t.Context(), conv.ID)
		if len(s.Objects) != objects || s.Revision == "" {
			t.Errorf("%d objects at revision %q, want %d", len(s.Objects), s.Revision, objects)
		}
		return err
	})
	costs(t, "by thread", ops(azurite.OpTableQuery, 2), func() error {
		page, err := c.ByThread(t.Context(), conv.ID.Thread(), conversation.PageRequest{Limit: 1})
		if len(page.Conversations) != 1 || page.More {
			t.Errorf("listed %d, more %t", len(page.Conversations), page.More)
		}
		return err
	})
}

func TestTouchedConversationsWithLongFactsFitTheirTransactions(t *testing.T) {
	tenant := storetest.NewTenant()
	c := azure.NewCatalog(tenant, tables)
	var touched []conversation.Conversation
	for i := range 90 {
		conv := chat(tenant, fmt.Sprint("big", i), march)
		for range 1000 {
			conv.Custodians = append(conv.Custodians, ann)
		}
		touched = append(touched, conv)
	}
	done := conversation.WindowDone{Window: conversation.Window{Custodian: ann, From: march, To: march.Add(time.Hour), Pass: 1}}
	if err := c.FinishWindow(t.Context(), done, touched); err != nil {
		t.Fatal(err)
	}
	page, err := c.ByTime(t.Context(), march, march.Add(time.Hour), conversation.PageRequest{})
	if err != nil || len(page.Conversations) != len(touched) {
		t.Errorf("%d listed, %v", len(page.Conversations), err)
	}
}

func TestDamagedRowsAreErrors(t *testing.T) {
	tenant := storetest.NewTenant()
	c, conv := azure.NewCatalog(tenant, tables), chat(tenant, "a", march)
	if err := c.Claim(t.Context(), conversation.Slice{}, conversation.Claim{Conversation: conv}); err != nil {
		t.Fatal(err)
	}
	table := tables.NewClient(azure.TableConversations)
	partition := string(tenant) + "-" + string(conv.ID.Thread())
	for _, kind := range []string{"o-1", "r-1", "x"} {
		key := azure.InvertedDay(march) + "-" + kind
		put(t, table, fmt.Sprintf(`{"PartitionKey":%q,"RowKey":%q,"Data@odata.type":"Edm.Binary","Data":"AQID"}`, partition, key))
		if _, err := c.Slice(t.Context(), conv.ID); err == nil {
			t.Errorf("row %s with three damaged bytes was read", kind)
		}
		if _, err := table.DeleteEntity(t.Context(), partition, key, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Slice(t.Context(), conv.ID); err != nil {
		t.Errorf("without the damaged rows: %v", err)
	}
}

// broken answers every request itself.
type broken func(*http.Request) (*http.Response, error)

func (b broken) Do(r *http.Request) (*http.Response, error) { return b(r) }

func TestErrorsOfStorageNameNobody(t *testing.T) {
	refuse := broken(func(r *http.Request) (*http.Response, error) {
		body := `{"odata.error":{"code":"ServerBusy","message":{"value":"` + string(ann) + `"}}}`
		return &http.Response{
			StatusCode: http.StatusServiceUnavailable, Status: "503 Server busy", Request: r,
			Header: http.Header{"X-Ms-Request-Id": {"req-1"}, "Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)),
		}, nil
	})
	cut := broken(func(r *http.Request) (*http.Response, error) {
		return nil, &url.Error{Op: "Get", URL: r.URL.String(), Err: io.ErrUnexpectedEOF}
	})
	for what, transport := range map[string]broken{"refused": refuse, "cut": cut} {
		s := newTables(t, transport)
		tenant := storetest.NewTenant()
		c, r := azure.NewCatalog(tenant, s), azure.NewRoster(tenant, s)
		_, err1 := c.ByPerson(t.Context(), ann, march, march.Add(time.Hour), conversation.PageRequest{})
		_, err2 := r.PeriodsOf(t.Context(), ann)
		_, err3 := r.People(t.Context(), []teams.PersonID{ann})
		_, err4 := azure.NewKeys(s).Get(t.Context(), tenant, string(ann), "id")
		budget, err := azure.NewBudget(tenant, s, 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		for i, err := range []error{err1, err2, err3, err4, c.SaveProgress(t.Context(), ann, conversation.Progress{}), budget.Take(t.Context())} {
			switch {
			case err == nil:
				t.Errorf("%s %d: no error", what, i)
			case strings.Contains(err.Error(), string(ann)) || strings.Contains(err.Error(), string(tenant)):
				t.Errorf("%s %d: the error names somebody: %v", what, i, err)
			case what == "refused" && (!strings.Contains(err.Error(), "503") || !strings.Contains(err.Error(), "req-1")):
				t.Errorf("%s %d: the error tells an operator nothing: %v", what, i, err)
			case what == "cut" && !errors.Is(err, io.ErrUnexpectedEOF):
				t.Errorf("%s %d: the cause is lost: %v", what, i, err)
			}
		}
	}
}

func TestMissingTableIsNotAMissingRow(t *testing.T) {
	missing := broken(func(r *http.Request) (*http.Response, error) {
		return &http.Response{
			StatusCode: http.StatusNotFound, Status: "404 Not Found", Request: r, Header: http.Header{"Content-Type": {"application/json"}, "X-Ms-Error-Code": {"TableNotFound"}},
			Body: io.NopCloser(bytes.NewReader([]byte(`{"odata.error":{"code":"TableNotFound","message":{"value":""}}}`))),
		}, nil
	})
	_, err := azure.NewKeys(newTables(t, missing)).Get(context.Background(), storetest.NewTenant(), "unit", "id")
	if err == nil || errors.Is(err, evidence.ErrNotFound) {
		t.Errorf("error %v, want one that is not ErrNotFound", err)
	}
}
