package main

import (
	"net/http"
	"time"
)

func checkFailure(t *trial) {
	c := t.record(nil)
	c.play(voices(0, 101))
	c.take(1)
	t.demand(http.StatusOK, http.MethodPost, "/v1/test/calls/"+c.id+"/failure", map[string]string{"socket": "audio"}, nil)
	if l := c.await("failure"); l.Socket != "audio" {
		t.errorf("failure line %+v", l)
	}
	if i, _ := t.info(c.id); i.State != "failed" || i.Gate != "closed" {
		t.errorf("the call is %s, its gate %s", i.State, i.Gate)
	}
	t.refused(c.gate("open", acknowledged()), http.StatusConflict, "call_failed", "opening the gate")
	t.refuses(http.StatusConflict, "call_failed", http.MethodPost, "/v1/calls/"+c.id+"/reoffer", map[string]any{})
	c.quiet("after the failure")
	t.demand(http.StatusNoContent, http.MethodDelete, "/v1/calls/"+c.id+"?reason=failed", nil, nil)
	if l := c.await("bye"); l.Reason != "failed" {
		t.errorf("bye line %+v", l)
	}
}

func checkKill(t *trial) {
	c := t.record(nil)
	c.play(voices(0, 101))
	c.take(1)
	t.demand(http.StatusAccepted, http.MethodPost, "/v1/test/exit", map[string]any{}, nil)
	start := time.Now()
	if !t.within(3*time.Second, func() bool { _, err := t.client.health(t.ctx); return err != nil }) {
		t.errorf("health still answers after 3 s")
	}
	t.logf("noticed after %v", time.Since(start).Round(time.Millisecond))
	if n := len(c.of("bye")); n > 0 {
		t.errorf("a killed gateway said bye")
	}
}

func checkOrphan(t *trial) {
	c := t.record(nil)
	c.play(voices(0, 101), voices(1, 101))
	c.take(2)
	c.mute.Store(true)
	c.say(`{"t":"ping","seq":2}`)
	time.Sleep(settle)
	t.advance(6500 * time.Millisecond)
	t.until("the orphan", func() bool { i, _ := t.info(c.id); return i.State == "orphaned" && i.Gate == "closed" })
	c.hangUp() // the recorder has died; its successor finds the call in the list
	t.until("the orphan still", func() bool { i, ok := t.info(c.id); return ok && i.State == "orphaned" })

	next := &call{t: t, id: c.id}
	t.demand(http.StatusOK, http.MethodPost, "/v1/calls/"+c.id+"/reoffer", map[string]any{}, &next.made)
	t.cleanup(next.hangUp)
	if next.SessionID == c.SessionID || next.Blob != c.Blob || next.State != "new" || next.AudioBase != c.AudioBase {
		t.errorf("reoffer: session the same %t, blob the same %t, state %s", next.SessionID == c.SessionID, next.Blob == c.Blob, next.State)
	}
	t.refused(c.gate("closed", nil), http.StatusConflict, "session_mismatch", "the old session")
	next.answer(settings{})
	next.await("hello")
	next.play(voices(2, 101))
	next.quiet("before the successor opened the gate")
	next.open()
	next.play(voices(3, 101, 102, 103, 104))
	for _, p := range next.take(4) {
		want := uint8(1)
		if p.track == "a0" { // it has had a binding
			want = 2
		}
		if p.rtp != c.AudioBase+3*step || p.stamped && p.epoch != want {
			t.errorf("the successor's first frame on %s has RTP time %d after the base, epoch %d", p.track, p.rtp-c.AudioBase, p.epoch)
		}
	}

	next.mute.Store(true)
	t.advance(6500 * time.Millisecond)
	t.until("the second orphan", func() bool { i, _ := t.info(c.id); return i.State == "orphaned" })
	t.advance(121 * time.Second)
	t.goneWithin(t.patience, c.id)
}

type stats struct {
	BuffersTaken, BuffersDisposed, CallbacksAfterEnd, HeapBytes, Tasks int64
}

func (t *trial) stats() (s stats) {
	t.demand(http.StatusOK, http.MethodGet, "/v1/test/stats", nil, &s)
	return s
}

// What calls may leave behind: traces of them in lists, and pools that have grown.
const (
	heapSlack = 16 << 20
	taskSlack = 25
)

func checkLeaks(t *trial) {
	cycle := func(n int) {
		for range n {
			body := map[string]any{"callId": t.newID()}
			t.demand(http.StatusCreated, http.MethodPost, "/v1/calls", body, nil)
			t.demand(http.StatusNoContent, http.MethodDelete, "/v1/calls/"+body["callId"].(string), nil, nil)
		}
	}
	cycle(5)
	before := t.stats()
	for range t.times(50, 3) {
		c := t.record(nil)
		c.play(voices(0, 101), voices(1, 101, 102))
		c.take(3)
		t.demand(http.StatusNoContent, http.MethodDelete, "/v1/calls/"+c.id, nil, nil)
		c.hangUp()
		t.refuses(http.StatusNotFound, "call_unknown", http.MethodPost, "/v1/test/calls/"+c.id+"/ticks", map[string]any{"ticks": []tick{voices(2, 101)}})
	}
	cycle(t.times(10_000, 40))
	var after stats
	t.within(t.patience, func() bool {
		after = t.stats()
		return after.Tasks <= before.Tasks+taskSlack && after.HeapBytes <= before.HeapBytes+heapSlack
	})
	t.logf("before %+v, after %+v", before, after)
	if after.Tasks > before.Tasks+taskSlack || after.HeapBytes > before.HeapBytes+heapSlack {
		t.errorf("tasks grew from %d to %d, the heap from %d to %d bytes", before.Tasks, after.Tasks, before.HeapBytes, after.HeapBytes)
	}
	if after.BuffersTaken != after.BuffersDisposed || after.CallbacksAfterEnd != before.CallbacksAfterEnd {
		t.errorf("%d buffers taken, %d disposed, %d callbacks after the end of their call", after.BuffersTaken, after.BuffersDisposed, after.CallbacksAfterEnd-before.CallbacksAfterEnd)
	}
}
