package retention_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/storetest"
)

// packaged stores a package of an order, and returns its unit.
func (r *rig) packaged(o policy.ExportOrder, attempt string) string {
	r.t.Helper()
	store, err := evidence.New(evidence.Config{Blobs: &r.parts, Keys: r.keys, Vault: vault, VaultHosts: []string{storetest.VaultHost}, Now: r.now})
	r.ok(err)
	unit := "export-" + o.ID + "-" + attempt
	w := store.NewParts(r.t.Context(), r.tenant, unit)
	_, err = w.Write([]byte("what people said"))
	r.ok(err)
	r.ok(w.Close())
	return unit
}

func (r *rig) exported(id string, state policy.ExportState, conversations ...string) policy.ExportOrder {
	r.t.Helper()
	o := policy.ExportOrder{ID: strings.Repeat(id, 32), Requester: carol, State: state, Conversations: conversations, MadeAt: r.now()}
	if state == policy.ExportReady {
		o.Unit, o.Expires = "export-"+o.ID+"-00000001", r.now().Add(policy.ExportLife)
	}
	r.ok(r.exports.Insert(r.t.Context(), o))
	return o
}

// units lists whose parts are stored.
func (r *rig) units() []string {
	var out []string
	for _, name := range r.parts.Names() {
		out = append(out, strings.Split(name, "/")[1])
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestPackagesAreDestroyedWhenTheirTimeIsOverAndSoIsWhatDeadBuildsLeft(t *testing.T) {
	r := newRig(t)
	ready, busy := r.exported("a", policy.ExportReady, "x"), r.exported("b", policy.ExportBuilding, "x")
	current := r.packaged(ready, "00000001")
	r.packaged(ready, "00000000") // by a build that died before
	working := r.packaged(busy, "00000000")
	r.packaged(policy.ExportOrder{ID: strings.Repeat("c", 32)}, "00000000") // of no order at all
	r.run()
	if got := r.units(); !slices.Equal(got, []string{current, working}) {
		t.Errorf("stored are %v", got)
	}
	r.pass(25 * time.Hour)
	r.run()
	if got := r.units(); !slices.Equal(got, []string{current}) {
		t.Errorf("after a day stored are %v", got)
	}
	r.pass(policy.ExportLife)
	r.run()
	o, err := r.exports.Get(t.Context(), ready.ID)
	r.ok(err)
	keys, err := r.keys.List(t.Context(), r.tenant, current)
	r.ok(err)
	if got := r.units(); len(got) != 0 || o.State != policy.ExportExpired || len(keys) != 0 {
		t.Errorf("stored are %v, the order is %s, %d keys", got, o.State, len(keys))
	}
	if n := len(r.events(custody.PackageExpired)); n != 4 {
		t.Errorf("%d destructions are on record, want 4", n)
	}
	r.run()
	if n := len(r.events(custody.PackageExpired)); n != 4 {
		t.Errorf("%d destructions are on record after another run", n)
	}
}

func TestAnErasureRecallsThePackagesThatHoldWhatIsErased(t *testing.T) {
	r := newRig(t)
	id := r.chat(today.AddDate(0, 0, -3), "a canary", time.Time{}, false)
	holds, other := r.exported("a", policy.ExportReady, string(id)), r.exported("b", policy.ExportReady, "another")
	r.packaged(holds, "00000001")
	stays := r.packaged(other, "00000001")
	r.agreed(policy.ActionErase, r.now().AddDate(0, 0, -8), map[string]string{policy.ParameterGround: "Art. 17(1)(b)", policy.ParameterNotLocked: "true"}, string(id))
	r.run()
	o, err := r.exports.Get(t.Context(), holds.ID)
	r.ok(err)
	if got := r.units(); !slices.Equal(got, []string{stays}) || o.State != policy.ExportExpired {
		t.Errorf("stored are %v, the order is %s\n%s", got, o.State, r.logs.b.String())
	}
}
