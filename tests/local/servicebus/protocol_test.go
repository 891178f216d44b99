package servicebus

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	sb "github.com/Azure/azure-sdk-for-go/sdk/messaging/azservicebus"
	"github.com/Azure/go-amqp"
)

func startNamespace(t testing.TB, queues ...Queue) *Namespace {
	t.Helper()
	n, err := Start(Config{Queues: queues})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

// A peer is a client that sends what frames a test wants.
type peer struct {
	t  testing.TB
	nc net.Conn
}

// connect opens a connection and a session on channel 0 whose client accepts
// window transfer frames.
func connect(t testing.TB, n *Namespace, idle time.Duration, window uint32) *peer {
	t.Helper()
	nc, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	p := &peer{t, nc}
	p.raw(amqpHeader)
	head := make([]byte, len(amqpHeader))
	if _, err := io.ReadFull(nc, head); err != nil || !bytes.Equal(head, amqpHeader) {
		t.Fatalf("protocol header %q, %v", head, err)
	}
	p.send(codeOpen, "peer", nil, uint32(maxFrame), uint16(1), uint32(idle.Milliseconds()))
	p.want(codeOpen)
	p.send(codeBegin, nil, uint32(0), window, uint32(100))
	p.want(codeBegin)
	return p
}

func (p *peer) raw(b []byte) {
	p.t.Helper()
	if _, err := p.nc.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) send(code uint64, fields ...any) {
	p.t.Helper()
	p.raw(appendFrame(nil, frame{code: code, fields: fields}))
}

// want reads frames, passing over heartbeats, and asserts the next one's code.
func (p *peer) want(code uint64) frame {
	p.t.Helper()
	for {
		f, err := readFrame(p.nc)
		if err != nil {
			p.t.Fatalf("waiting for performative %#x: %v", code, err)
		}
		if f.code == 0 {
			continue
		}
		if f.code != code {
			p.t.Fatalf("performative %#x %v, want %#x", f.code, f.fields, code)
		}
		return f
	}
}

// attachReceiver attaches a link with handle 0 and gives it credit.
func (p *peer) attachReceiver(queue string, window, credit uint32) {
	p.t.Helper()
	p.send(codeAttach, "link", uint32(0), true, nil, uint8(1),
		described{codeSource, []any{queue}}, described{codeTarget, []any{}})
	p.want(codeAttach)
	p.send(codeFlow, uint32(0), window, uint32(0), uint32(100), uint32(0), uint32(0), credit)
}

func fill(t testing.TB, n *Namespace, queue string, bodies ...string) {
	t.Helper()
	c, err := sb.NewClientFromConnectionString(n.ConnectionString(), nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	defer c.Close(ctx)
	s, err := c.NewSender(queue, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range bodies {
		if err := s.SendMessage(ctx, &sb.Message{Body: []byte(b)}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMalformedFrameClosesOnlyItsConnection(t *testing.T) {
	n := startNamespace(t, Queue{Name: "q"})
	for name, bad := range map[string][]byte{
		"size below header":    {0, 0, 0, 7, 2, 0, 0, 0},
		"size over limit":      {0xff, 0, 0, 0, 2, 0, 0, 0},
		"data offset":          {0, 0, 0, 8, 9, 0, 0, 0},
		"frame type":           {0, 0, 0, 8, 2, 7, 0, 0},
		"no descriptor":        {0, 0, 0, 9, 2, 0, 0, 0, 0x40},
		"unknown constructor":  {0, 0, 0, 12, 2, 0, 0, 0, 0, 0x53, 0x10, 0x99},
		"short list":           {0, 0, 0, 14, 2, 0, 0, 0, 0, 0x53, 0x13, 0xc0, 9, 1},
		"many elements":        {0, 0, 0, 19, 2, 0, 0, 0, 0, 0x53, 0x13, 0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff},
		"deep":                 deepFrame(),
		"unknown performative": appendFrame(nil, frame{code: 0x77, fields: []any{}}),
		"second open":          appendFrame(nil, frame{code: codeOpen, fields: []any{"again"}}),
		"no session":           appendFrame(nil, frame{channel: 9, code: codeFlow, fields: []any{}}),
	} {
		p := connect(t, n, 0, 10)
		p.raw(bad)
		f := p.want(codeClose)
		fault, _ := field[described](f.fields, 0)
		if condition, _ := field[amqp.Symbol](fault.fields, 0); condition == "" {
			t.Errorf("%s: closed without a reason: %v", name, f.fields)
		}
		if _, err := readFrame(p.nc); err == nil {
			t.Errorf("%s: the connection is still open", name)
		}
	}
	fill(t, n, "q", "still served")
	if d := n.Depth("q"); d.Active != 1 {
		t.Errorf("depth is %+v", d)
	}
}

func deepFrame() []byte {
	v := []any{}
	for range 2 * maxDepth {
		v = []any{v}
	}
	return appendFrame(nil, frame{code: codeFlow, fields: v})
}

func TestForeignProtocolIsAnsweredWithOursAndClosed(t *testing.T) {
	n := startNamespace(t)
	nc, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.WriteString(nc, "GET / HT"); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(nc)
	if err != nil || !bytes.Equal(got, amqpHeader) {
		t.Errorf("answer %q, %v", got, err)
	}
}

func TestClientsWindowIsObeyed(t *testing.T) {
	n := startNamespace(t, Queue{Name: "q"})
	big := strings.Repeat("x", 150<<10) // three frames
	fill(t, n, "q", "one", big, "three")
	p := connect(t, n, 0, 2)
	p.attachReceiver("q", 2, 10)
	p.want(codeTransfer)
	first := p.want(codeTransfer)
	if more, _ := field[bool](first.fields, 5); !more {
		t.Fatal("the second message came whole in one frame")
	}
	// Nothing comes beyond the window, whatever else is asked: the answer to an
	// echo is the next frame.
	p.send(codeFlow, uint32(2), uint32(0), uint32(0), uint32(100), nil, nil, nil, nil, nil, true)
	p.want(codeFlow)
	if d := n.Depth("q"); d.Locked != 2 || d.Active != 1 {
		t.Errorf("depth is %+v", d)
	}
	p.send(codeFlow, uint32(2), uint32(10), uint32(0), uint32(100))
	size := len(first.payload)
	for range 2 {
		size += len(p.want(codeTransfer).payload)
	}
	if size < len(big) {
		t.Errorf("second message has %d bytes, want over %d", size, len(big))
	}
	last := p.want(codeTransfer)
	if more, _ := field[bool](last.fields, 5); more || !bytes.Contains(last.payload, []byte("three")) {
		t.Errorf("third message: %q", last.payload)
	}
}

func TestStalledClientHoldsUpNobody(t *testing.T) {
	n := startNamespace(t, Queue{Name: "slow"}, Queue{Name: "q"})
	fill(t, n, "slow", slices.Repeat([]string{strings.Repeat("x", 200<<10)}, 150)...) // 30 MB: more than a socket buffers
	p := connect(t, n, 0, 1<<20)
	p.attachReceiver("slow", 1<<20, 1000)
	deadline := time.Now().Add(10 * time.Second)
	for n.Depth("slow").Locked == 0 && time.Now().Before(deadline) {
		fill(t, n, "q", "meanwhile")
	}
	began := time.Now()
	fill(t, n, "q", "x")
	fill(t, n, "slow", "x")
	if took := time.Since(began); took > writeTimeout/2 {
		t.Errorf("sending beside a stalled client took %v", took)
	}
	if n.Depth("slow").Locked == 0 {
		t.Error("the stalled client was sent nothing")
	}
}

func TestIdleClientGetsHeartbeats(t *testing.T) {
	n := startNamespace(t)
	p := connect(t, n, 50*time.Millisecond, 10)
	for range 3 {
		f, err := readFrame(p.nc)
		if err != nil || f.code != 0 {
			t.Fatalf("performative %#x, %v; want a heartbeat", f.code, err)
		}
	}
}

func TestSilentClientIsDropped(t *testing.T) {
	n := startNamespace(t)
	n.mu.Lock()
	n.idle = 50 * time.Millisecond
	n.mu.Unlock()
	p := connect(t, n, 0, 10)
	for {
		if _, err := readFrame(p.nc); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Error(err)
			}
			return
		}
	}
}

func TestSenderBeyondItsCreditIsDetached(t *testing.T) {
	n := startNamespace(t, Queue{Name: "q"})
	p := connect(t, n, 0, 10)
	p.send(codeAttach, "link", uint32(0), false, uint8(0), nil,
		described{codeSource, []any{}}, described{codeTarget, []any{"q"}})
	p.want(codeAttach)
	p.want(codeFlow)
	n.mu.Lock()
	for c := range n.conns {
		c.sessions[0].links[0].credit = 0
	}
	n.mu.Unlock()
	p.send(codeTransfer, uint32(0), uint32(0), []byte{1}, uint32(0), false, false)
	f := p.want(codeDetach)
	fault, _ := field[described](f.fields, 2)
	if condition, _ := field[amqp.Symbol](fault.fields, 0); condition != amqp.Symbol(amqp.ErrCondTransferLimitExceeded) {
		t.Errorf("detached with %v", f.fields)
	}
}

func TestUndecodableMessageIsRejected(t *testing.T) {
	n := startNamespace(t, Queue{Name: "q"})
	p := connect(t, n, 0, 10)
	p.send(codeAttach, "link", uint32(0), false, uint8(0), nil,
		described{codeSource, []any{}}, described{codeTarget, []any{"q"}})
	p.want(codeAttach)
	p.want(codeFlow)
	p.raw(appendFrame(nil, frame{
		code:    codeTransfer,
		fields:  []any{uint32(0), uint32(0), []byte{1}, uint32(0), false, false},
		payload: []byte{0, 0x53, 0x75, 0xb0, 0xff, 0xff, 0xff, 0xff},
	}))
	f := p.want(codeDisposition)
	if state, _ := field[described](f.fields, 4); state.code != codeRejected {
		t.Errorf("settled with %v", f.fields)
	}
	if d := n.Depth("q"); d != (Depth{}) {
		t.Errorf("depth is %+v", d)
	}
}

func TestDeliveryTagIsTheLockTokenAsAGuid(t *testing.T) {
	token := amqp.UUID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	want := []byte{3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15}
	if got := deliveryTag(token); !bytes.Equal(got, want) {
		t.Errorf("tag %v, want %v", got, want)
	}
}

func TestDuplicateWindowIsPruned(t *testing.T) {
	n := startNamespace(t, Queue{Name: "q", DuplicateWindow: time.Nanosecond})
	q := n.queues["q"]
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range 1000 {
		m := &amqp.Message{Properties: &amqp.MessageProperties{MessageID: uint64(i)}}
		if err := q.put(m); err != nil {
			t.Fatal(err)
		}
	}
	if len(q.seen) > 2 || len(q.seenLog) > 2 {
		t.Errorf("%d ids remembered in %d sightings", len(q.seen), len(q.seenLog))
	}
}

func frameSeeds() [][]byte {
	open := appendFrame(nil, frame{code: codeOpen, fields: []any{"peer", nil, uint32(maxFrame), uint16(1), uint32(1000)}})
	begin := appendFrame(nil, frame{code: codeBegin, fields: []any{nil, uint32(0), uint32(9), uint32(9)}})
	attach := func(handle uint32, receiver bool, source, target string) []byte {
		return appendFrame(nil, frame{code: codeAttach, fields: []any{"l", handle, receiver, uint8(0), uint8(1),
			described{codeSource, []any{source}}, described{codeTarget, []any{target}}}})
	}
	transfer := appendFrame(nil, frame{
		code:    codeTransfer,
		fields:  []any{uint32(0), uint32(0), []byte{1}, uint32(0), true, false},
		payload: []byte{0, 0x53, 0x75, 0xa0, 1, 'x'},
	})
	flow := appendFrame(nil, frame{code: codeFlow, fields: []any{uint32(0), uint32(9), uint32(0), uint32(9), uint32(1), uint32(0), uint32(5), nil, true, true}})
	settle := appendFrame(nil, frame{code: codeDisposition, fields: []any{true, uint32(0), uint32(0xffffffff), true, described{codeRejected, []any{
		described{codeError, []any{amqp.Symbol("com.microsoft:dead-letter"), "d"}}}}}})
	story := slices.Concat(open, begin, attach(0, false, "", "q"), attach(1, true, "q", ""), transfer, flow, settle)
	return [][]byte{
		open, begin, attach(0, true, "$cbs", "reply"), transfer, flow, settle, story,
		appendFrame(nil, frame{}), deepFrame(),
		appendFrame(nil, frame{code: codeDetach, fields: []any{uint32(0), true}}),
		appendFrame(nil, frame{code: codeEnd, fields: []any{}}),
		appendFrame(nil, frame{code: codeClose, fields: []any{}}),
		{0, 0, 0, 17, 2, 0, 0, 0, 0, 0x53, 0x14, 0xc1, 4, 2, 0xa3, 0, 0x40},
		{0, 0, 0, 18, 2, 0, 0, 0, 0, 0x53, 0x14, 0xc0, 5, 1, 0xe0, 3, 2, 0x41},
	}
}

func FuzzFrame(f *testing.F) {
	for _, seed := range frameSeeds() {
		f.Add(seed[4:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFrame(b)
		if err != nil && !errors.Is(err, errMalformed) {
			t.Errorf("error %v is not errMalformed", err)
		}
		if err == nil && len(got.payload) > len(b) {
			t.Errorf("payload of %d bytes in a frame of %d", len(got.payload), len(b))
		}
		if m, err := unmarshal(b); err == nil && m == nil {
			t.Error("neither a message nor an error")
		}
	})
}

// FuzzConnection plays frames to a namespace, whose state must stay usable.
func FuzzConnection(f *testing.F) {
	for _, seed := range frameSeeds() {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := &Namespace{
			idle:   idleTimeout,
			queues: make(map[string]*queue),
			conns:  make(map[*conn]struct{}),
			wake:   make(chan struct{}, 1),
		}
		if err := n.addQueue(Queue{Name: "q", DuplicateWindow: time.Minute}); err != nil {
			t.Fatal(err)
		}
		c := newConn(n, nil)
		r := bytes.NewReader(b)
		for {
			fr, err := readFrame(r)
			if err != nil {
				break
			}
			if fr.code == 0 {
				continue
			}
			if done, err := c.handle(fr); done || err != nil {
				break
			}
		}
		for _, s := range c.sessions {
			s.end()
		}
		for name, q := range n.queues {
			if len(q.links) != 0 {
				t.Errorf("queue %s keeps %d links", name, len(q.links))
			}
		}
	})
}
