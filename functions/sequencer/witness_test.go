package sequencer_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"steno/functions/sequencer"
	"steno/shared/custody"
	"steno/shared/storetest"
)

// notebook is a witness that writes down what it is given.
type notebook struct {
	got  []custody.Signed
	down error
}

func (n *notebook) Keep(_ context.Context, origin string, s custody.Signed) error {
	if n.down != nil {
		return n.down
	}
	if origin != custody.Origin(tenant) {
		return errors.New("checkpoint of another log")
	}
	n.got = append(n.got, s)
	return nil
}

func TestEachSignedCheckpointReachesEachWitnessAndVerifiesThere(t *testing.T) {
	r := newRig(t)
	a, b := new(notebook), new(notebook)
	r.witnesses = map[string]custody.Witness{"a": a, "b": b, "archive": custody.Archive{Tiles: &r.tiles.Tiles}}
	for range 3 {
		r.happen(5)
		r.run()
		r.run() // nothing new: nobody is asked twice
		r.pass(time.Hour)
	}
	for _, n := range []*notebook{a, b} {
		if len(n.got) != 3 {
			t.Fatalf("a witness has %d checkpoints, want 3", len(n.got))
		}
		var older custody.Checkpoint
		for i, s := range n.got {
			c, err := custody.VerifyCheckpoint(&r.signer.key.PublicKey, custody.Origin(tenant), []byte(s.Text), s.Signature)
			if err != nil {
				t.Fatal(err)
			}
			proof, err := custody.NewTree(&r.tiles.Tiles, c).ProveConsistency(t.Context(), older.Size)
			if err != nil {
				t.Fatal(err)
			}
			if i > 0 && custody.CheckConsistency(older, c, proof) != nil {
				t.Errorf("checkpoint %d does not continue the one before", i)
			}
			older = c
		}
	}
	for _, name := range []string{"signed/5", "signed/10", "signed/15"} {
		text, err := r.tiles.Tiles.Read(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		text, signature, err := custody.CutSigned(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := custody.VerifyCheckpoint(&r.signer.key.PublicKey, custody.Origin(tenant), text, signature); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAWitnessThatIsAwayHoldsNobodyUpAndIsAnAlarmAfterADay(t *testing.T) {
	r := newRig(t)
	up, away := new(notebook), &notebook{down: errors.New("away")}
	r.witnesses = map[string]custody.Witness{"up": up, "away": away}
	r.happen(3)
	r.run()
	r.whole(3)
	if len(up.got) != 1 {
		t.Errorf("the witness that is there has %d checkpoints", len(up.got))
	}
	if strings.Contains(r.logs.String(), "alarm=witness") {
		t.Error("alarm at the first refusal")
	}
	r.pass(sequencer.Patience + time.Minute)
	r.run()
	if !strings.Contains(r.logs.String(), "alarm=witness") || !strings.Contains(r.logs.String(), "witness=away") {
		t.Errorf("a day without a witness raised no alarm that names it: %s", r.logs.String())
	}
	away.down = nil
	r.run()
	if len(away.got) != 1 || len(up.got) != 1 {
		t.Errorf("back again it has %d checkpoints, the other %d", len(away.got), len(up.got))
	}
}

// TestARewrittenHistoryIsAnAlarmAtTheWitness: the operator makes another log and signs it
// with the right key. The storage of the log agrees with it; the witness does not.
func TestARewrittenHistoryIsAnAlarmAtTheWitness(t *testing.T) {
	r := newRig(t)
	elsewhere := new(storetest.Tiles)
	r.witnesses = map[string]custody.Witness{"elsewhere": custody.Archive{Tiles: elsewhere}}
	r.happen(4)
	r.run()
	forged := newRig(t)
	forged.signer, forged.witnesses = r.signer, r.witnesses
	forged.happen(4)
	forged.run()
	forged.whole(4)
	if !strings.Contains(forged.logs.String(), "alarm=witness") {
		t.Errorf("no alarm: %s", forged.logs.String())
	}
}

func TestAnotherKeyIsAnnouncedUnderTheOldOneBeforeItSigns(t *testing.T) {
	r := newRig(t)
	r.happen(2)
	r.run()
	old := r.signer.key
	r.signer.rotate()
	r.pass(time.Hour)
	r.happen(1)
	r.run()
	r.whole(4) // three events and the announcement
	records, err := r.trail.Range(t.Context(), time.Time{}, r.clock().Add(time.Hour), 10)
	if err != nil {
		t.Fatal(err)
	}
	var change custody.KeyChange
	for _, e := range records {
		if e.Action == custody.KeyChanged {
			if change, err = custody.ReadKeyChange(custody.Origin(tenant), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := change.Check(spki(t, old), spki(t, r.signer.key)); err != nil {
		t.Error(err)
	}
	forged := change
	forged.To = strings.Repeat("0", 64)
	if err := forged.Check(spki(t, old), spki(t, r.signer.key)); !errors.Is(err, custody.ErrProof) {
		t.Errorf("another key under the same announcement: %v", err)
	}
	swapped := change
	swapped.ByOld, swapped.ByNew = change.ByNew, change.ByOld
	if err := swapped.Check(spki(t, old), spki(t, r.signer.key)); !errors.Is(err, custody.ErrProof) {
		t.Errorf("the new key vouches for itself: %v", err)
	}
	// A signature over a checkpoint is none over an announcement, and the other way round.
	h, _ := r.head()
	swapped = change
	swapped.ByNew = h.Signed.Signature
	if err := swapped.Check(spki(t, old), spki(t, r.signer.key)); !errors.Is(err, custody.ErrProof) {
		t.Errorf("the signature of a checkpoint passes: %v", err)
	}
	r.pass(time.Hour)
	r.happen(1)
	r.run()
	r.whole(5) // announced once
	if c, err := custody.Latest(t.Context(), r.tiles, custody.Origin(tenant), &r.signer.key.PublicKey); err != nil || c.Size != 5 {
		t.Errorf("%d leaves under the new key: %v", c.Size, err)
	}
}

func TestAWebhookGetsWhatOpensslCanVerifyAndItsAddressIsShownNowhere(t *testing.T) {
	var got []byte
	answer := http.StatusAccepted
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("a redirect was followed")
		}
		buf := new(bytes.Buffer)
		if _, err := buf.ReadFrom(r.Body); err != nil {
			t.Error(err)
		}
		got = buf.Bytes()
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answer)
	}))
	defer s.Close()
	const secret = "sig=canary-7f3a"
	r := newRig(t)
	r.witnesses = map[string]custody.Witness{"webhook": sequencer.NewWebhook(s.URL+"/hook?"+secret, s.Client().Transport)}
	r.happen(1)
	r.run()
	var p struct {
		Origin, Text, Fingerprint string
		Signature                 []byte
	}
	if err := json.Unmarshal(got, &p); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(p.Text))
	if !ecdsa.VerifyASN1(&r.signer.key.PublicKey, sum[:], p.Signature) || p.Origin != custody.Origin(tenant) || len(p.Fingerprint) != 64 {
		t.Errorf("posted %s", got)
	}
	for _, bad := range []int{http.StatusFound, http.StatusBadRequest, http.StatusInternalServerError} {
		answer = bad
		r.pass(time.Hour)
		r.happen(1)
		r.run()
	}
	s.Close()
	r.run()
	if n := strings.Count(r.logs.String(), "not taken by a witness"); n != 4 {
		t.Errorf("%d refusals are in the log, want 4: %s", n, r.logs.String())
	}
	if strings.Contains(r.logs.String(), "canary") || strings.Contains(r.logs.String(), "/hook") {
		t.Errorf("the log shows the address: %s", r.logs.String())
	}
}
