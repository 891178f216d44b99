package retention_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"steno/shared/azure"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
	"steno/tests/local/azurite"
)

// newCloudRig is an archive on Azurite behind the write-once proxy, with the real clock.
func newCloudRig(t *testing.T) (*rig, *aztables.ServiceClient) {
	ctx := t.Context()
	account, err := azurite.Start(ctx, azurite.Config{Log: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := account.Stop(); err != nil {
			t.Error(err)
		}
	})
	tables, err := aztables.NewServiceClientFromConnectionString(account.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range azure.Tables {
		if _, err := tables.CreateTable(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	blobs, err := azblob.NewClientFromConnectionString(account.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := blobs.CreateContainer(ctx, "evidence", nil); err != nil {
		t.Fatal(err)
	}
	raw := blobs.ServiceClient().NewContainerClient("evidence")
	store := azure.NewBlobs(raw)
	tenant := storetest.NewTenant()
	r := &rig{
		t: t, tenant: tenant, blobs: store, locking: store.Locking(), keys: azure.NewKeys(tables), catalog: azure.NewCatalog(tenant, tables),
		roster: azure.NewRoster(tenant, tables), matters: azure.NewMatters(tenant, tables), approved: azure.NewApprovals(tenant, tables),
		disposed: azure.NewDispositions(tenant, tables), trail: azure.NewTrail(tenant, tables),
	}
	r.raw = raw
	r.start()
	return r, tables
}

// row is a row of the truth table.
type row struct{ hold, expiry, erasure, worm string }

// want says what must become of it: hold beats expiry beats erasure, and storage beats all
// three until its date.
func (c row) want() fate {
	destroyed := map[bool]fate{true: gone, false: shredded}[c.worm == "past"]
	switch {
	case c.hold == "placed" || c.hold == "in grace":
		return kept
	case c.expiry == "due" && c.worm == "past":
		return gone
	case c.erasure == "attested" && (c.expiry == "due" || c.worm != "locked"), c.erasure == "waited" && c.expiry == "due":
		return destroyed
	}
	return kept
}

func TestHoldBeatsExpiryBeatsErasureInEveryCombinationOnWriteOnceStorage(t *testing.T) {
	r, tables := newCloudRig(t)
	r.escrowed() // of what is destroyed no copy of a key may stay
	ctx := t.Context()
	now := time.Now()
	// The policies are unchanged since the last sweep: no date is to move in this test.
	r.ok(r.disposed.SaveSweep(ctx, policy.Sweep{At: now, Policies: r.config.Policies.Digest()}))
	later := now.Add(24 * time.Hour)
	table := map[conversation.ID]row{}
	canaries := map[conversation.ID]string{}
	var past []conversation.ID
	for _, hold := range []string{"none", "placed", "in grace", "over"} {
		for _, expiry := range []string{"running", "due"} {
			for _, erasure := range []string{"none", "requested", "approved", "waited", "attested"} {
				for _, worm := range []string{"locked", "unlocked", "past"} {
					c := row{hold, expiry, erasure, worm}
					day := map[string]time.Time{"running": now.AddDate(0, -1, 0), "due": now.AddDate(-7, 0, 0)}[expiry]
					until := later
					if worm == "past" {
						until = time.Time{}
					}
					canary := fmt.Sprintf("canary%04dcanary", len(table))
					id := r.chat(day, canary, until, worm == "locked")
					table[id], canaries[id] = c, canary
					if worm == "past" {
						past = append(past, id)
					}
					r.holdAs(hold, id, now)
					r.eraseAs(erasure, id, now)
				}
			}
		}
	}
	if len(table) != 4*2*5*3 {
		t.Fatalf("%d rows", len(table))
	}
	// A date that was and has passed is not the same as none: those rows get one, and the
	// test waits for its end.
	r.expire(past)

	for run := range 2 { // the second one must change nothing
		r.run()
		for id, c := range table {
			if got := r.fateOf(id); got != c.want() {
				t.Errorf("run %d, %+v: %s, want %s", run, c, got, c.want())
			}
		}
	}
	var erased, left []string
	for id, c := range table {
		r.refusesEarlyDeletion(id, c, c.want() != gone && c.worm != "past")
		if c.want() != kept {
			erased = append(erased, canaries[id])
			continue
		}
		r.readable(id, canaries[id])
		if n := len(r.recordsOf(string(id))); n != 1 {
			t.Errorf("%+v is kept with %d records of its keys in escrow", c, n)
		}
		left = append(left, canaries[id])
	}
	if found := r.found(tables, erased); len(found) != 0 {
		t.Errorf("of what was destroyed there is still: %v", found)
	}
	if found := r.found(tables, left); len(found) != len(left) {
		t.Errorf("of %d that were kept the search finds %d: it would find nothing else either", len(left), len(found))
	}
	if len(erased) == 0 || len(erased) == len(table) {
		t.Errorf("%d of %d rows destroyed: the table shows nothing", len(erased), len(table))
	}
}

// holdAs brings a conversation under a matter in one of four conditions.
func (r *rig) holdAs(hold string, id conversation.ID, now time.Time) {
	r.t.Helper()
	if hold == "none" {
		return
	}
	m := r.matter(id)
	switch hold {
	case "in grace":
		r.release(m, now.Add(-24*time.Hour))
	case "over":
		r.release(m, now.Add(-policy.DefaultGrace-time.Hour))
		keeper := evidence.Keeper{Objects: r.blobs, Keys: r.keys}
		if n, err := keeper.Hold(r.t.Context(), r.tenant, string(id), true); err != nil || n != 1 { // as a run before the release left it
			r.t.Fatalf("%d held, %v", n, err)
		}
	}
}

// eraseAs asks for the erasure of a conversation, up to one of five conditions.
func (r *rig) eraseAs(erasure string, id conversation.ID, now time.Time) {
	r.t.Helper()
	weekAgo := now.Add(-8 * 24 * time.Hour)
	switch erasure {
	case "requested":
		r.proposed(policy.ActionErase, weekAgo, nil, string(id))
	case "approved":
		r.agreed(policy.ActionErase, now.Add(-2*time.Hour), nil, string(id))
	case "waited":
		r.agreed(policy.ActionErase, weekAgo, nil, string(id))
	case "attested":
		r.agreed(policy.ActionErase, weekAgo, attested, string(id))
	}
}

// expire puts conversations under an unlocked date and waits until it has passed.
func (r *rig) expire(ids []conversation.ID) {
	r.t.Helper()
	end := time.Now().Add(2 * time.Second)
	keeper := evidence.Keeper{Objects: r.blobs, Keys: r.keys}
	for _, id := range ids {
		if time.Until(end) < time.Second {
			end = time.Now().Add(2 * time.Second)
		}
		if n, err := keeper.Extend(r.t.Context(), r.tenant, string(id), end); err != nil || n != 1 {
			r.t.Fatalf("%d under a date, %v", n, err)
		}
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		s, err := keeper.State(r.t.Context(), r.tenant, string(ids[len(ids)-1]))
		r.ok(err)
		if time.Now().After(s.Until) {
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatal("the date never passed")
		}
	}
}

// refusesEarlyDeletion deletes an object with the right to dispose, past every check of
// ours: storage itself must refuse where a date or a hold stands.
func (r *rig) refusesEarlyDeletion(id conversation.ID, c row, dated bool) {
	r.t.Helper()
	held := c.hold == "placed" || c.hold == "in grace"
	if !dated && !held {
		return
	}
	list, err := r.blobs.List(r.t.Context(), string(r.tenant)+"/"+string(id)+"/")
	r.ok(err)
	for _, o := range list {
		ours := r.blobs.Delete(r.t.Context(), o.Name)
		_, err := r.raw.NewBlobClient(o.Name).Delete(r.t.Context(), nil)
		want, code := evidence.ErrLocked, string(bloberror.BlobImmutableDueToPolicy)
		if held {
			want, code = evidence.ErrHeld, "BlobImmutableDueToLegalHold"
		}
		if !errors.Is(ours, want) || !bloberror.HasCode(err, bloberror.Code(code)) {
			r.t.Errorf("%+v: deletion was answered with %v and %v", c, ours, err)
		}
	}
	if len(list) == 0 {
		r.t.Errorf("%+v: nothing is stored", c)
	}
}

// readable opens what was kept.
func (r *rig) readable(id conversation.ID, canary string) {
	r.t.Helper()
	ctx := r.t.Context()
	slice, err := r.catalog.Slice(ctx, id)
	r.ok(err)
	receipt, err := r.log().Append(ctx, custody.Event{Action: custody.SystemRead, System: "test", Item: string(id)})
	r.ok(err)
	o, err := r.store.Open(ctx, evidence.Ref{Tenant: r.tenant, Unit: string(id), Object: slice.Objects[0].Name}, receipt)
	r.ok(err)
	if b, err := o.ReadAll(1 << 10); err != nil || string(b) != canary {
		r.t.Errorf("%s: %q, %v", id, b, err)
	}
}

// found lists the canaries that stand in any table, in clear or in a document, or in any
// blob.
func (r *rig) found(tables *aztables.ServiceClient, canaries []string) map[string]string {
	r.t.Helper()
	out := map[string]string{}
	look := func(where string, b []byte) {
		for _, c := range canaries {
			if bytes.Contains(b, []byte(c)) {
				out[c] = where
			}
		}
	}
	for _, name := range azure.Tables {
		pager := tables.NewClient(name).NewListEntitiesPager(nil)
		for pager.More() {
			page, err := pager.NextPage(r.t.Context())
			r.ok(err)
			for _, e := range page.Entities {
				var fields map[string]any
				r.ok(json.Unmarshal(e, &fields))
				data, _ := fields["Data"].(string)
				plain, err := base64.StdEncoding.DecodeString(data)
				r.ok(err)
				look("table "+name, e)
				look("table "+name, plain)
			}
		}
	}
	list, err := r.blobs.List(r.t.Context(), "")
	r.ok(err)
	for _, o := range list {
		b, err := r.blobs.ReadAt(r.t.Context(), o.Name, 0, o.Size)
		r.ok(err)
		look("blob", b)
	}
	return out
}
