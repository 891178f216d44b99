package finalize_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"steno/functions/finalize"
	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
)

// seals are the custody events that speak of manifests.
func (r *rig) seals() []custody.Record {
	r.t.Helper()
	all, err := r.trail.Range(r.t.Context(), start.Add(-time.Hour), start.Add(time.Hour), 1000)
	if err != nil {
		r.t.Fatal(err)
	}
	return slices.DeleteFunc(all, func(e custody.Record) bool { return e.Action != custody.Sealed })
}

func TestTheStoredManifestOfASealedLegIsBoundByTheTrail(t *testing.T) {
	r := newRig(t)
	n := r.store(r.recording("call-1", "chain-1", rita))
	r.handle(n)
	r.handle(n) // a repetition adds nothing
	leg := r.call("chain-1").Legs[0]
	seals := r.seals()
	if len(seals) != 1 || seals[0].Item != string(leg.Leg) || len(seals[0].Objects) != 1 {
		t.Fatalf("%+v", seals)
	}
	bound := seals[0].Objects[0]
	if bound.Unit != string(leg.Leg) || bound.Object != leg.Manifest || bound.Seq != 0 || bound.Void {
		t.Fatalf("%+v", bound)
	}
	name := string(home) + "/" + string(leg.Leg) + "/" + leg.Manifest
	size, err := r.blobs.Size(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.blobs.ReadAt(t.Context(), name, 0, size)
	if err != nil {
		t.Fatal(err)
	}
	if sum := sha256.Sum256(b); bound.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("the trail says %s, stored is %x", bound.SHA256, sum)
	}
	o, plain := r.open(leg, leg.Manifest)
	if c := evidence.Commitment(o.Blind(), sha256.Sum256(plain)); bound.Commit != hex.EncodeToString(c[:]) {
		t.Errorf("the trail commits to %s, the plain bytes give %x", bound.Commit, c)
	}
	for _, b := range r.manifest(leg).Bundles {
		if digest, err := hex.DecodeString(b.Plain); err != nil || len(digest) != sha256.Size {
			t.Errorf("bundle %d: digest of the plain bytes is %q", b.Seq, b.Plain)
		}
	}
	for _, p := range r.manifest(leg).Packs {
		_, digest, err := r.evidence.Digest(t.Context(), evidence.Ref{Tenant: home, Unit: string(leg.Leg), Object: p.Object})
		if err != nil || hex.EncodeToString(digest[:]) != p.SHA256 {
			t.Errorf("pack %s: %v", p.Object, err)
		}
	}
}

// mute is a trail that takes no event of one kind.
type mute struct {
	custody.Trail
	action custody.Action
}

var errMute = errors.New("trail is down")

func (m mute) Insert(ctx context.Context, r custody.Record) error {
	if r.Action == m.action {
		return errMute
	}
	return m.Trail.Insert(ctx, r)
}

func TestALegIsNotSealedBeforeTheTrailBindsItsManifest(t *testing.T) {
	r := newRig(t)
	n := r.store(r.recording("call-1", "chain-1", rita))
	body, err := conversation.EncodeNotice(n)
	if err != nil {
		t.Fatal(err)
	}
	clock := func() time.Time { return r.now }
	deaf := finalize.New(finalize.Config{Tenant: home, Now: clock}, r.evidence, &r.register, &r.people,
		custody.Log{Trail: mute{&r.trail, custody.Sealed}, Now: clock}, &r.queue, slog.New(slog.DiscardHandler))
	if err := deaf.Handle(t.Context(), body); !errors.Is(err, errMute) {
		t.Fatalf("error %v", err)
	}
	if c := r.call("chain-1"); len(c.Legs) > 0 && c.Legs[0].State == conversation.LegSealed {
		t.Fatal("sealed without an event that says so")
	}
	r.handle(n) // the queue delivers it again
	if seals := r.seals(); len(seals) != 1 || r.call("chain-1").Legs[0].State != conversation.LegSealed {
		t.Errorf("%d events, legs %+v", len(seals), r.call("chain-1").Legs)
	}
}
