package retention_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"strings"
	"sync"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
)

// recoverer is the key of those who restore.
var recoverer = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, evidence.MinRecoveryBits)
	if err != nil {
		panic(err)
	}
	return k
})

// escrowed configures a recovery key, from here on.
func (r *rig) escrowed() {
	r.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&recoverer().PublicKey)
	r.ok(err)
	r.recovery, err = evidence.ParseRecoveryKey(base64.StdEncoding.EncodeToString(der))
	r.ok(err)
	r.store = r.storeOn(r.blobs)
}

// records lists the escrow records of units.
func (r *rig) recordsOf(units ...string) (names []string) {
	r.t.Helper()
	for _, u := range units {
		list, err := r.blobs.List(r.t.Context(), string(r.tenant)+"/"+u+"/")
		r.ok(err)
		for _, o := range list {
			if strings.Contains(o.Name, "/escrow-") {
				names = append(names, o.Name)
			}
		}
	}
	return names
}

// restore is what is done when the key table is lost.
func (r *rig) restore() evidence.Recovered {
	r.t.Helper()
	open, err := evidence.OpenWith(recoverer())
	r.ok(err)
	done, err := evidence.Recovery{Tenant: r.tenant, Objects: r.blobs, Keys: r.keys, Vault: vault, Open: open}.Run(r.t.Context(), "")
	r.ok(err)
	return done
}

// lose destroys the rows of units' keys, as a thief with that right would.
func (r *rig) lose(units ...string) (lost int) {
	r.t.Helper()
	for _, u := range units {
		ring, err := r.keys.List(r.t.Context(), r.tenant, u)
		r.ok(err)
		for _, w := range ring {
			r.ok(r.keys.Delete(r.t.Context(), r.tenant, u, w.ID))
			lost++
		}
	}
	return lost
}

func TestALostKeyTableIsRestoredFromEscrow(t *testing.T) {
	r := newRig(t)
	theLossOfTheKeyTable(t, r)
}

func TestALostKeyTableIsRestoredFromEscrowOnWriteOnceStorage(t *testing.T) {
	r, _ := newCloudRig(t)
	theLossOfTheKeyTable(t, r)
}

func theLossOfTheKeyTable(t *testing.T, r *rig) {
	r.escrowed()
	until := r.now().Add(24 * time.Hour)
	day := r.now().AddDate(0, 0, -3).UTC().Truncate(24 * time.Hour).Add(9 * time.Hour)
	a, b := r.chat(day, "alpha", until, false), r.chat(day, "beta", until, true)
	r.run()
	first := r.recordsOf(string(a), string(b))
	for i := 0; i < 2; i++ { // nothing is new
		r.run()
		if again := r.recordsOf(string(a), string(b)); len(first) != 2 || strings.Join(again, " ") != strings.Join(first, " ") {
			t.Fatalf("records %v, then %v", first, again)
		}
	}
	for _, n := range first {
		p, err := r.blobs.Protection(t.Context(), n)
		r.ok(err)
		if p.Until.Before(until.Truncate(time.Second)) {
			t.Errorf("%s is protected until %s, its unit until %s", n, p.Until, until)
		}
	}
	r.store = r.storeOn(r.blobs) // another process writes with keys of its own
	c := r.chat(day, "gamma", until, false)
	r.run()
	units := []string{string(a), string(b), string(c)}
	if lost := r.lose(units...); lost != 3 {
		t.Fatalf("%d keys lost", lost)
	}
	if done := r.restore(); done != (evidence.Recovered{Records: 3, Restored: 3}) {
		t.Errorf("restored %+v", done)
	}
	if done := r.restore(); done != (evidence.Recovered{Records: 3, There: 3}) {
		t.Errorf("restored again %+v", done)
	}
	r.store = r.storeOn(r.blobs)
	for id, canary := range map[conversation.ID]string{a: "alpha", b: "beta", c: "gamma"} {
		r.readable(id, canary)
	}
}

func TestErasureDestroysTheCopyInEscrowToo(t *testing.T) {
	r := newRig(t)
	r.escrowed()
	id := r.chat(fresh, "x", today.Add(48*time.Hour), false)
	r.run()
	if n := r.recordsOf(string(id)); len(n) != 1 {
		t.Fatalf("records %v", n)
	}
	r.agreed(policy.ActionErase, r.now().Add(-8*24*time.Hour), attested, string(id))
	r.run()
	r.want("erased under a date that is not locked", shredded, id)
	if done := r.restore(); done != (evidence.Recovered{}) {
		t.Errorf("restored %+v of what was erased", done)
	}
	r.run()
	r.want("the next run", shredded, id)
}

func TestErasureIsRefusedWhileTheCopyInEscrowIsLocked(t *testing.T) {
	r := newRig(t)
	r.escrowed()
	r.records = r.locking
	until := today.Add(48 * time.Hour)
	id := r.chat(old, "x", until, false) // due by its policy; storage's date has not passed
	r.run()
	p := r.agreed(policy.ActionErase, r.now().Add(-8*24*time.Hour), attested, string(id))
	r.run()
	r.want("the copy is locked", kept, id)
	if e := r.events(custody.EraseRefused)[p.Digest]; !strings.Contains(e.Reason, "escrow") {
		t.Errorf("event %+v", e)
	}
	r.pass(49 * time.Hour)
	r.run()
	r.want("when the date has passed", gone, id)
}

func TestTheCopyInEscrowFollowsItsUnit(t *testing.T) {
	r := newRig(t)
	r.escrowed()
	chat := r.chat(old, "x", time.Time{}, false)
	call, leg := r.call(old, time.Time{})
	m := r.matter(chat, call)
	r.run()
	r.run() // the first one held what was there before the copies
	for _, n := range r.recordsOf(string(chat), string(leg)) {
		if p, err := r.blobs.Protection(t.Context(), n); err != nil || !p.Held {
			t.Errorf("%s: %+v, %v", n, p, err)
		}
	}
	if n := r.recordsOf(string(chat), string(leg)); len(n) != 2 {
		t.Errorf("records %v", n)
	}
	r.want("held", kept, chat)
	r.want("held", kept, call, string(leg))
	r.release(m, r.now())
	r.pass(policy.DefaultGrace + 24*time.Hour)
	r.run()
	r.want("disposed", gone, chat)
	r.want("disposed", gone, call, string(leg))
	if n := r.recordsOf(string(chat), string(leg)); len(n) != 0 {
		t.Errorf("left in escrow: %v", n)
	}
}

func TestKeysWithoutACopyRaiseAnAlarm(t *testing.T) {
	r := newRig(t)
	id := r.chat(fresh, "before", time.Time{}, false)
	r.escrowed()
	r.chat(fresh, "after", time.Time{}, false)
	r.ok(r.keys.Insert(t.Context(), evidence.WrappedKey{Tenant: r.tenant, Unit: "export-" + strings.Repeat("0", 32), ID: evidence.NewObjectID()})) // packages have none
	r.ok(r.keys.Insert(t.Context(), evidence.WrappedKey{Tenant: r.tenant, Unit: "notify-" + strings.Repeat("0", 32), ID: evidence.NewObjectID()})) // nor have notifications' keys
	row, err := r.keys.List(t.Context(), r.tenant, string(id))
	r.ok(err)
	r.run()
	if !r.logs.has("alarm=escrow keys=1") {
		t.Errorf("no alarm for %s", row[0].ID)
	}
	r.pass(time.Hour)
	r.run() // it looks a little behind where the first one began
	r.pass(time.Hour)
	r.logs = &lines{}
	r.run()
	if r.logs.has("alarm=escrow") {
		t.Error("a later run raises it again, though nothing is new")
	}
}
