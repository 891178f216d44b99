package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"steno/shared/conversation"
	"steno/tests/sim"
	"steno/tests/world"
)

func TestStorageThatIsAwayForFortySecondsCostsNothingAndNoMediaLiesInClearMeanwhile(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Parties: []sim.Party{
		{Person: users[0], Recorded: true}, {Person: users[1], Recorded: true}, {Guest: "Visitor"}, {Phone: "+493012345680"},
	}})
	recording(t, call)
	people := call.Participants()
	if err := errors.Join(call.Show(people[0], true), call.Share(people[1], true)); err != nil {
		t.Fatal(err)
	}
	talk(t, 2*time.Second)
	w.Storage.SetAway(true)
	var waiting int64
	for range 4 {
		talk(t, 10*time.Second)
		waiting = max(waiting, noMediaInFiles(t, w.Bot.Dir, mediaOf(call.Truth())))
	}
	if waiting < 100_000 {
		t.Errorf("%d bytes wait on disk after 40 s without storage", waiting)
	}
	w.Storage.SetAway(false)
	talk(t, 8*time.Second)
	noMediaInBlobs(t, a, mediaOf(call.Truth()), 2)
	call.End()
	r := compare(t, a, log, call)
	if r.Pictures < 100 {
		t.Errorf("%d pictures in the archive", r.Pictures)
	}
	legs, manifests := sealed(t, w, a, log, call)
	for k, m := range manifests {
		if legs[k].Outcome != conversation.OutcomeRecorded {
			t.Errorf("leg %s is %s: %s", m.Leg, legs[k].Outcome, legs[k].Reason)
		}
		if m.Lost() > 0 {
			t.Errorf("leg %s: %s were lost", m.Leg, m.Lost())
		}
		wallTime(t, a, m)
		once(t, a, m)
	}
	all := mediaOf(call.Truth())
	noMediaInFiles(t, w.Bot.Dir, all)
	noMediaInBlobs(t, a, all, 4)
	t.Logf("%+v, %d bytes on disk at most, %d pieces of media", r, waiting, all.pieces)
}

// noMediaInBlobs looks through every blob, of which there should be some.
func noMediaInBlobs(t *testing.T, a *world.Archive, media clearMedia, some int) {
	t.Helper()
	objects := 0
	err := a.Blobs(t.Context(), func(name string, content []byte) {
		objects++
		if media.in(content) {
			t.Errorf("media lies in clear in blob %s", name)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if objects < some {
		t.Errorf("%d blobs were looked at, want %d and more", objects, some)
	}
}

// pieceLength is how many bytes of a packet or a slice are looked for.
const pieceLength = 24

// clearMedia finds pieces of media among other bytes.
type clearMedia struct {
	pieces int
	maybe  *[1 << 21]bool      // by 21 bits of their first eight bytes
	by     map[uint64][][]byte // by their first eight bytes
}

func bits(key uint64) uint64 { return key * 0x9e3779b97f4a7c15 >> 43 }

// mediaOf takes a piece of every packet and slice that was sent, from behind the first
// bytes, which many have in common.
func mediaOf(truth sim.Truth) clearMedia {
	m := clearMedia{by: map[uint64][][]byte{}, maybe: new([1 << 21]bool)}
	add := func(b []byte) {
		if len(b) < 8+pieceLength {
			return
		}
		piece := b[8 : 8+pieceLength]
		if bytes.Count(piece, piece[:1]) == pieceLength {
			return // plain color is in many files
		}
		key := binary.BigEndian.Uint64(piece)
		if slices.ContainsFunc(m.by[key], func(have []byte) bool { return bytes.Equal(have, piece) }) {
			return
		}
		m.maybe[bits(key)] = true
		m.by[key] = append(m.by[key], piece)
		m.pieces++
	}
	for _, u := range truth.Utterances {
		for _, p := range u.Packets {
			add(p)
		}
	}
	for _, p := range truth.Pictures {
		add(p.AnnexB)
	}
	return m
}

// in reports whether any piece is in b.
func (m clearMedia) in(b []byte) bool {
	if len(b) < pieceLength {
		return false
	}
	key := binary.BigEndian.Uint64(b)
	for i := 0; ; i++ {
		if m.maybe[bits(key)] && slices.ContainsFunc(m.by[key], func(piece []byte) bool { return bytes.HasPrefix(b[i:], piece) }) {
			return true
		}
		if i+8 >= len(b) {
			return false
		}
		key = key<<8 | uint64(b[i+8])
	}
}

// noMediaInFiles looks through every file below a folder, and returns how many bytes it
// saw. A file that goes meanwhile goes unseen, and is looked for again next time.
func noMediaInFiles(t *testing.T, dir string, media clearMedia) (seen int64) {
	t.Helper()
	if media.pieces < 50 {
		t.Errorf("%d pieces of media to look for", media.pieces)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		seen += int64(len(b))
		if media.in(b) {
			t.Errorf("media lies in clear in %s", filepath.Base(path))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestMediaInClearWouldBeFound(t *testing.T) {
	packet := bytes.Repeat([]byte("opus packet no. 17 "), 4)
	m := mediaOf(sim.Truth{Utterances: []sim.Utterance{{Packets: [][]byte{packet}}}})
	file := bytes.Repeat([]byte{0x5a}, 1001)
	if m.pieces != 1 || m.in(file) {
		t.Fatal("found where there is none")
	}
	for _, at := range []int{0, 7, 500, 1001} {
		hidden := append(append(bytes.Clone(file[:at]), packet...), file[at:]...)
		if !m.in(hidden) {
			t.Errorf("not found at %d", at)
		}
	}
}

// TestNothingIsKeptBeforeTheAcknowledgment: people speak while the call rings and while
// Graph takes its time over the recording status; none of it leaves the gateway or is
// recorded.
func TestNothingIsKeptBeforeTheAcknowledgment(t *testing.T) {
	w, a, log := startCalls(t, world.Config{})
	users := recordedUsers(w)
	call := place(t, w, sim.CallPlan{Talk: sim.AllAtOnce, Ringing: 3 * time.Second, Parties: []sim.Party{
		{Person: users[0], Recorded: true}, {Phone: "+493012345681"}, {Guest: "Visitor"},
	}})
	eventually(t, 5*time.Second, "the answer", func() bool { return call.Legs()[0].State == "establishing" })
	w.Tenant.Faults().SlowBy(3 * time.Second)
	w.Tenant.Faults().Chance(sim.Slow, 1)
	id := call.Legs()[0].ID
	var last time.Time // when nothing had left the gateway yet
	eventually(t, 15*time.Second, "the first frame", func() bool {
		at := time.Now()
		info, ok := w.Bot.Gateway.Call(id)
		frames := int64(0)
		for _, n := range info.Counters.Frames {
			frames += n
		}
		if ok && frames == 0 {
			last = at
		}
		return frames > 0
	})
	w.Tenant.Faults().Clear()
	talk(t, 4*time.Second)
	call.End()
	_, manifests := sealed(t, w, a, log, call)
	m, info := manifests[0], call.Legs()[0]
	var established, acknowledged time.Time
	for _, e := range m.Events {
		switch e.Kind {
		case conversation.EventEstablished:
			established = e.At
		case conversation.EventRecording:
			acknowledged = e.At
		}
	}
	if d := acknowledged.Sub(established); d < 2900*time.Millisecond {
		t.Errorf("recording was acknowledged %s after the call was established: nothing was slow", d)
	}
	said := 0
	for _, u := range call.Truth().Utterances {
		if u.From.Before(acknowledged.Add(-2 * time.Second)) {
			said++
		}
	}
	if said != 3 {
		t.Errorf("%d of 3 spoke before the acknowledgment", said)
	}
	frames, early := 0, 0
	err := a.Frames(t.Context(), m, func(f world.Frame) {
		frames++
		if f.At.Before(acknowledged.Add(-20 * time.Millisecond)) { // it may be under way for a frame's length
			early++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if early > 0 || frames < 300 {
		t.Errorf("%d of %d frames were recorded before the acknowledgment", early, frames)
	}
	if last.Before(acknowledged.Add(-200 * time.Millisecond)) {
		t.Errorf("frames left the gateway since %s, the acknowledgment came at %s", last, acknowledged)
	}
	if at := world.RecordedFrom(info); at.After(acknowledged) {
		t.Errorf("the tenant took the status at %s, after the acknowledgment at %s", at, acknowledged)
	}
}
