package ingest

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/pion/transport/v4/packetio"
)

type losses chan error

func (l losses) Connected()                      {}
func (l losses) Control(string, json.RawMessage) {}
func (l losses) Lost(err error)                  { l <- err }

// unconnected is a peer without a connection: what pion would hand to it, the test does.
func unconnected() (*Peer, losses) {
	lost := make(losses, 10)
	p := &Peer{events: lost, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	p.intake = newIntake([]Track{{Name: "a0", Kind: "audio", SSRC: 7, PT: 111, ClockRate: 48000}}, 1, DefaultWindow, time.Now())
	return p, lost
}

func TestSourcesThatWereNotOfferedAreHeldNowhereAndOneHundredAreTooMany(t *testing.T) {
	p, lost := unconnected()
	f := &field{intake: p.intake, t: t, now: time.Now()}
	p.intake.attach(f.now, f.now, f)
	for i := range uint32(maxUndeclared + 20) {
		b := p.buffer(packetio.RTPBufferPacket, 1000+i)
		if n, err := b.Write(make([]byte, 100)); n != 100 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := b.Read(make([]byte, 100)); !errors.Is(err, io.EOF) {
			t.Fatal("what was not offered can be read: ", err)
		}
	}
	if err := <-lost; !errors.Is(err, ErrContract) {
		t.Error(err)
	}
	if len(lost) != 0 || len(f.odd_) != 1 || p.Counters().Packets != 0 {
		t.Errorf("lost %d times more, told %v, %d packets taken", len(lost), f.odd_, p.Counters().Packets)
	}
}

// fragile is a sink with a fault.
type fragile struct{ *field }

func (fragile) Frame(*Frame) { panic("a fault") }

func TestAFaultInOneLegEndsItAndTheProcessGoesOn(t *testing.T) {
	p, lost := unconnected()
	f := &field{intake: p.intake, t: t, now: time.Now(), seqs: map[string]uint16{}}
	p.intake.attach(f.now, f.now, fragile{f})
	f.clock(0)
	f.bindTo("a0", 1, alice, 0)
	b := p.buffer(packetio.RTPBufferPacket, 7)
	if _, err := b.Write(f.packet("a0", 1, 960, 1, alice, speech)); err != nil {
		t.Error(err)
	}
	if err := <-lost; err == nil {
		t.Error("lost for no reason")
	}
	if _, err := b.Write(f.packet("a0", 2, 1920, 1, alice, speech)); err != nil {
		t.Error("the lock is held, or the inlet is gone: ", err)
	}
}
