package sequencer_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"steno/functions/sequencer"
	"steno/shared/custody"
)

func spki(t *testing.T, k *ecdsa.PrivateKey) []byte {
	t.Helper()
	b, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// revocations reads what the trail says of revoked keys.
func (r *rig) revocations() (out []custody.KeyRevocation) {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), time.Time{}, r.clock().Add(time.Hour), 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range records {
		if e.Action != custody.KeyRevoked {
			continue
		}
		k, err := custody.ReadKeyRevocation(custody.Origin(tenant), e)
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, k)
	}
	return out
}

func (r *rig) actions(a custody.Action) (n int) {
	r.t.Helper()
	records, err := r.trail.Range(r.t.Context(), time.Time{}, r.clock().Add(time.Hour), 100)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range records {
		if e.Action == a {
			n++
		}
	}
	return n
}

func TestARevokedKeySignsNothingAndTheTrailSaysSoUnderItsSuccessor(t *testing.T) {
	r := newRig(t)
	r.happen(2)
	r.run()
	stolen := r.signer.key
	signed, _ := r.head()
	r.revoked = []string{custody.Fingerprint(spki(t, stolen))}

	r.pass(2 * time.Hour)
	r.happen(1)
	if err := r.sequencer().Run(t.Context()); !errors.Is(err, sequencer.ErrRevoked) {
		t.Fatalf("the revoked key is all there is: %v", err)
	}
	r.whole(3) // the log grows
	if h, _ := r.head(); string(h.Signed.Signature) != string(signed.Signed.Signature) || h.Revoked != nil {
		t.Error("something was signed by the revoked key, or told to be")
	}
	if !strings.Contains(r.logs.String(), "alarm=signing-key") {
		t.Errorf("no alarm: %s", r.logs.String())
	}

	r.signer.rotate()
	for id := range r.signer.old {
		r.signer.old[id] = nil // disabled in the vault, so it cannot hand over
	}
	r.run()
	r.whole(4)
	told := r.revocations()
	if len(told) != 1 || r.actions(custody.KeyChanged) != 0 {
		t.Fatalf("%d revocations and %d hand-overs, want 1 and 0", len(told), r.actions(custody.KeyChanged))
	}
	k := told[0]
	if err := k.Check(spki(t, r.signer.key)); err != nil {
		t.Error(err)
	}
	if k.Key != r.revoked[0] || k.Tree.Size != 3 {
		t.Errorf("revoked: %+v", k)
	}
	// What the stolen key signed before counts, because the tree goes on from there; what its
	// thief signs does not.
	tree := custody.NewTree(&r.tiles.Tiles, k.Tree)
	proof, err := tree.ProveConsistency(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	before, err := custody.ParseCheckpoint(custody.Origin(tenant), []byte(signed.Signed.Text))
	if err != nil {
		t.Fatal(err)
	}
	if err := custody.CheckConsistency(before, k.Tree, proof); err != nil {
		t.Error(err)
	}
	forged := before
	forged.Root[7] ^= 1
	if err := custody.CheckConsistency(forged, k.Tree, proof); !errors.Is(err, custody.ErrSplitView) {
		t.Errorf("another history of the same size: %v", err)
	}
	if c, err := custody.Latest(t.Context(), r.tiles, custody.Origin(tenant), &r.signer.key.PublicKey); err != nil || c.Size != 4 {
		t.Errorf("%d leaves under the successor at once, want 4: %v", c.Size, err)
	}

	r.pass(2 * time.Hour)
	r.happen(1)
	r.run()
	r.whole(5)
	if n := len(r.revocations()); n != 1 {
		t.Errorf("told %d times", n)
	}
}

func TestARevocationIsTheSuccessorsAloneAndOfOneTree(t *testing.T) {
	r := newRig(t)
	r.happen(1)
	r.run()
	stolen := r.signer.key
	r.revoked = []string{custody.Fingerprint(spki(t, stolen))}
	r.signer.rotate()
	r.run()
	k := r.revocations()[0]
	for name, change := range map[string]func(*custody.KeyRevocation){
		"another key":   func(k *custody.KeyRevocation) { k.Key = strings.Repeat("0", 64) },
		"a larger tree": func(k *custody.KeyRevocation) { k.Tree.Size++ },
		"another root":  func(k *custody.KeyRevocation) { k.Tree.Root[0] ^= 1 },
		"another log":   func(k *custody.KeyRevocation) { k.Tree.Origin = custody.Origin("11111111-2222-3333-4444-555555555555") },
		"no signature":  func(k *custody.KeyRevocation) { k.Signature = nil },
		"by itself":     func(k *custody.KeyRevocation) { k.Key = k.By },
		"the signature of a checkpoint": func(k *custody.KeyRevocation) {
			h, _ := r.head()
			k.Signature = h.Signed.Signature
		},
	} {
		forged := k
		change(&forged)
		if err := forged.Check(spki(t, r.signer.key)); !errors.Is(err, custody.ErrProof) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := k.Check(spki(t, stolen)); !errors.Is(err, custody.ErrProof) {
		t.Errorf("the stolen key vouches for it: %v", err)
	}
	event := k.Event(tenant)
	for name, detail := range map[string]string{
		"cut": event.Detail[:40], "more": event.Detail + " x=1", "no size": strings.Replace(event.Detail, "size=", "size=x", 1),
		"negative": strings.Replace(event.Detail, "size=", "size=-", 1), "nothing": "",
	} {
		bad := event
		bad.Detail = detail
		if _, err := custody.ReadKeyRevocation(custody.Origin(tenant), custody.Record{Event: bad}); !errors.Is(err, custody.ErrProof) {
			t.Errorf("detail %s is read: %v", name, err)
		}
	}
}

// TestAKeyThatWasHandedOverIsRevokedLater: the theft shows when the key signs no more.
func TestAKeyThatWasHandedOverIsRevokedLater(t *testing.T) {
	r := newRig(t)
	r.happen(1)
	r.run()
	first := r.signer.key
	r.signer.rotate()
	r.pass(time.Hour)
	r.happen(1)
	r.run()
	r.revoked = []string{custody.Fingerprint(spki(t, first))}
	r.run()
	r.whole(4)
	told := r.revocations()
	if len(told) != 1 || r.actions(custody.KeyChanged) != 1 || told[0].Tree.Size != 3 {
		t.Fatalf("%d revocations, %d hand-overs: %+v", len(told), r.actions(custody.KeyChanged), told)
	}
	if err := told[0].Check(spki(t, r.signer.key)); err != nil {
		t.Error(err)
	}
}

// TestARunThatDiesWhileItRevokesLosesNoRevocation: the head cannot be saved after the event
// stands. It is told once more, and the first counts.
func TestARunThatDiesWhileItRevokesLosesNoRevocation(t *testing.T) {
	r := newRig(t)
	r.happen(1)
	r.run()
	r.revoked = []string{custody.Fingerprint(spki(t, r.signer.key))}
	r.signer.rotate()
	dying := sequencer.New(sequencer.Config{Tenant: tenant, SignEvery: time.Hour, Now: r.clock, Revoked: r.revoked}, &r.trail, noSwap{r.tiles}, r.signer, slog.New(slog.DiscardHandler))
	if err := dying.Run(t.Context()); err == nil {
		t.Fatal("the run lived")
	}
	r.pass(time.Second)
	r.run()
	told := r.revocations()
	if len(told) != 2 || told[0].Tree.Size != 1 || told[1].Tree.Size != 2 {
		t.Fatalf("revocations: %+v", told)
	}
	for _, k := range told {
		if err := k.Check(spki(t, r.signer.key)); err != nil {
			t.Error(err)
		}
	}
	r.whole(3)
}

// noSwap is a log whose head cannot be changed.
type noSwap struct{ custody.Tiles }

func (noSwap) SwapHead(context.Context, []byte, string) error { return errors.New("storage is away") }
