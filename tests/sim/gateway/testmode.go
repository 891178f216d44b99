package gateway

import (
	"net/http"
	"runtime"
	"strconv"
	"time"
)

// scriptedTick is a tick as a test writes it: numbers of sources stand for their tones.
type scriptedTick struct {
	Timestamp string   `json:"ts"` // units of 100 ns since 1900; empty or 0: none
	Unmixed   []uint32 `json:"unmixed"`
	Mixed     *uint32  `json:"mixed"` // whose tone the mixed buffer holds; null: zeros
	Active    []uint32 `json:"active"`
	Silence   bool     `json:"silence"`
}

type scriptedVideo struct {
	Socket    string `json:"socket"`
	Timestamp string `json:"ts"`
	Source    uint32 `json:"source"`
	W         int    `json:"w"`
	H         int    `json:"h"`
	OW        int    `json:"ow"`
	OH        int    `json:"oh"`
	AnnexB    []byte `json:"annexB"` // base64
}

// scriptWait bounds how long a scripted tick waits for room in the queue.
const scriptWait = 10 * time.Second

func (g *Gateway) testEndpoints(on func(string, endpoint)) {
	on("POST /v1/test/calls/{id}/ticks", (*Gateway).testTicks)
	on("POST /v1/test/calls/{id}/video", (*Gateway).testVideo)
	on("POST /v1/test/calls/{id}/failure", (*Gateway).testFailure)
	on("POST /v1/test/control", (*Gateway).testControl)
	on("GET /v1/test/stats", (*Gateway).testStats)
	on("POST /v1/test/exit", (*Gateway).testExit)
}

// testTicks hands ticks to a call as fast as they can be sent, or all at once.
func (g *Gateway) testTicks(r *http.Request) (reply, error) {
	c, err := g.theCall(r)
	if err != nil {
		return reply{}, err
	}
	var body struct {
		Burst bool           `json:"burst"`
		Ticks []scriptedTick `json:"ticks"`
	}
	if err := g.read(r, &body); err != nil {
		return reply{}, err
	}
	c.requests.Lock()
	defer c.requests.Unlock()
	for _, s := range body.Ticks {
		t, err := c.scripted(s)
		if err != nil {
			return reply{}, err
		}
		if !body.Burst && !c.waitForRoom(r) {
			return reply{}, refuse(http.StatusGatewayTimeout, "internal", "the queue did not empty")
		}
		c.take(t)
	}
	if !body.Burst {
		c.waitUntilSent()
	}
	return reply{http.StatusOK, map[string]int{"taken": len(body.Ticks)}}, nil
}

// scripted turns a script's tick into one of the platform.
func (c *call) scripted(s scriptedTick) (Tick, error) {
	t := Tick{Active: s.Active, Silence: s.Silence}
	if s.Timestamp != "" {
		ts, err := strconv.ParseInt(s.Timestamp, 10, 64)
		if err != nil {
			return t, refuse(http.StatusBadRequest, "bad_field", "ts must be a decimal number of 64 bits")
		}
		t.Timestamp = ts
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	voices := s.Unmixed
	if s.Mixed != nil {
		voices = append(voices[:len(voices):len(voices)], *s.Mixed)
	}
	packets, err := c.script.packets(voices)
	if err != nil {
		return t, err
	}
	if s.Unmixed != nil {
		t.Unmixed = []Entry{}
	}
	for i, msi := range s.Unmixed {
		t.Unmixed = append(t.Unmixed, Entry{msi, packets[i]})
	}
	if s.Mixed != nil {
		t.Mixed = packets[len(packets)-1]
	}
	return t, nil
}

func (c *call) waitForRoom(r *http.Request) bool {
	limit := time.NewTimer(scriptWait)
	defer limit.Stop()
	for {
		c.mu.Lock()
		free := c.ticks < queueTicks
		c.mu.Unlock()
		if free {
			return true
		}
		select {
		case <-c.room:
		case <-c.ended:
			return true
		case <-r.Context().Done():
			return false
		case <-limit.C:
			return false
		}
	}
}

// waitUntilSent returns when the queue is empty and nothing is on its way.
func (c *call) waitUntilSent() {
	for end := time.Now().Add(scriptWait); time.Now().Before(end); {
		c.sending.Lock()
		c.mu.Lock()
		n := len(c.queue)
		c.mu.Unlock()
		c.sending.Unlock()
		if n == 0 || c.g.stalled.Load() {
			return
		}
		select {
		case <-c.room:
		case <-c.ended:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

func (g *Gateway) testVideo(r *http.Request) (reply, error) {
	c, err := g.theCall(r)
	if err != nil {
		return reply{}, err
	}
	var body struct {
		Burst  bool            `json:"burst"`
		Frames []scriptedVideo `json:"frames"`
	}
	if err := g.read(r, &body); err != nil {
		return reply{}, err
	}
	c.requests.Lock()
	defer c.requests.Unlock()
	for _, f := range body.Frames {
		ts, err := strconv.ParseInt(f.Timestamp, 10, 64)
		if err != nil {
			return reply{}, refuse(http.StatusBadRequest, "bad_field", "ts must be a decimal number of 64 bits")
		}
		c.take(Tick{Missing: true, Video: []VideoFrame{{
			Socket: f.Socket, MSI: f.Source, Timestamp: ts, Width: f.W, Height: f.H, SourceW: f.OW, SourceH: f.OH, AnnexB: f.AnnexB,
		}}})
		if !body.Burst {
			c.waitUntilSent()
		}
	}
	return reply{http.StatusOK, map[string]int{"taken": len(body.Frames)}}, nil
}

func (g *Gateway) testFailure(r *http.Request) (reply, error) {
	c, err := g.theCall(r)
	if err != nil {
		return reply{}, err
	}
	var body struct {
		Socket string `json:"socket"`
	}
	if err := g.read(r, &body); err != nil {
		return reply{}, err
	}
	c.fail(body.Socket)
	return reply{http.StatusOK, map[string]string{"socket": body.Socket}}, nil
}

// testControl changes how the gateway is. Members that are absent leave things as they are.
func (g *Gateway) testControl(r *http.Request) (reply, error) {
	var body struct {
		Health       *Health `json:"health"`
		Draining     *bool   `json:"draining"`
		MaxCalls     *int    `json:"maxCalls"`
		AdvanceMs    *int64  `json:"advanceMs"`
		CtlDelayMs   *int64  `json:"ctlDelayMs"`
		StallSending *bool   `json:"stallSending"`
	}
	if err := g.read(r, &body); err != nil {
		return reply{}, err
	}
	if body.Health != nil {
		g.SetHealth(*body.Health)
	}
	if body.Draining != nil {
		g.Drain(*body.Draining)
	}
	if body.MaxCalls != nil {
		g.mu.Lock()
		g.maxCalls = *body.MaxCalls
		g.mu.Unlock()
	}
	if body.CtlDelayMs != nil {
		g.DelayControl(time.Duration(*body.CtlDelayMs) * time.Millisecond)
	}
	if body.StallSending != nil {
		g.Stall(*body.StallSending)
	}
	if body.AdvanceMs != nil {
		g.Skip(time.Duration(*body.AdvanceMs) * time.Millisecond)
	}
	return reply{http.StatusOK, map[string]any{}}, nil
}

func (g *Gateway) testStats(*http.Request) (reply, error) {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return reply{http.StatusOK, map[string]int64{
		"buffersTaken": g.buffers.taken.Load(), "buffersDisposed": g.buffers.disposed.Load(), "callbacksAfterEnd": g.late.Load(),
		"heapBytes": int64(m.HeapAlloc), "tasks": int64(runtime.NumGoroutine()),
	}}, nil
}

// testExit ends the process without a word, right after the reply.
func (g *Gateway) testExit(*http.Request) (reply, error) {
	time.AfterFunc(20*time.Millisecond, g.Kill)
	return reply{http.StatusAccepted, map[string]any{}}, nil
}
