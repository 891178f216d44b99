package funchost_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"steno/functions/internal/funchost"
)

func queueApp(t testing.TB, change func(*funchost.Config), handle func(context.Context, funchost.Message) error) (app, http.Handler) {
	t.Helper()
	a := newApp(t, change)
	a.Queue("finalize", "item", handle)
	return a, a.handler(t)
}

func TestSuccessIsAnsweredWithABodyAndNoOutputs(t *testing.T) {
	_, h := queueApp(t, nil, func(context.Context, funchost.Message) error { return nil })
	w := do(h, request("POST", "/finalize", invocation(`"\"abcd\""`)))
	mustBeAnswer(t, w, http.StatusOK)
	if got := w.Body.String(); got != `{"Outputs":{},"Logs":[],"ReturnValue":null}` {
		t.Errorf("answer %s", got)
	}
}

func TestErrorMakesTheHostRetry(t *testing.T) {
	a, h := queueApp(t, nil, func(context.Context, funchost.Message) error { return errors.New("storage is away") })
	mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"x\""`))), http.StatusInternalServerError)
	if log := a.log.String(); !strings.Contains(log, "storage is away") {
		t.Errorf("log %s", log)
	}
}

func TestPoisonIsParkedWithItsReasonAndCompleted(t *testing.T) {
	var parked, alarmed []funchost.Parked
	a, h := queueApp(t, func(c *funchost.Config) {
		c.Park = func(_ context.Context, p funchost.Parked) error { parked = append(parked, p); return nil }
		c.Alarm = func(_ context.Context, p funchost.Parked) { alarmed = append(alarmed, p) }
	}, func(context.Context, funchost.Message) error {
		return fmt.Errorf("decode leg 7: %w: %s", funchost.ErrPoison, strings.Repeat("x", 5000))
	})
	mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"x\""`))), http.StatusOK)
	if len(parked) != 1 || len(alarmed) != 1 {
		t.Fatalf("parked %d, alarmed %d, want 1 each", len(parked), len(alarmed))
	}
	p := parked[0]
	if p.Function != "finalize" || string(p.Message.Body) != "x" || len(p.Reason) != 1<<10 || !strings.HasPrefix(p.Reason, "decode leg 7: poison") {
		t.Errorf("parked %+v", p)
	}
	if log := a.log.String(); !strings.Contains(log, `"alarm":"poison"`) {
		t.Errorf("no alarm in log %s", log)
	}
}

func TestPoisonThatCannotBeParkedIsDeliveredAgain(t *testing.T) {
	for name, park := range map[string]func(context.Context, funchost.Parked) error{
		"error": func(context.Context, funchost.Parked) error { return errors.New("table is away") },
		"panic": func(context.Context, funchost.Parked) error { panic("park") },
	} {
		alarmed := false
		_, h := queueApp(t, func(c *funchost.Config) {
			c.Park = park
			c.Alarm = func(context.Context, funchost.Parked) { alarmed = true }
		}, func(context.Context, funchost.Message) error { return funchost.ErrPoison })
		mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"x\""`))), http.StatusInternalServerError)
		if alarmed {
			t.Errorf("%s: an alarm says that the message was parked", name)
		}
	}
}

func TestPoisonIsParkedEvenAtTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var left time.Duration
		_, h := queueApp(t, func(c *funchost.Config) {
			c.Park = func(ctx context.Context, _ funchost.Parked) error {
				deadline, _ := ctx.Deadline()
				left = time.Until(deadline)
				return ctx.Err()
			}
		}, func(ctx context.Context, _ funchost.Message) error { <-ctx.Done(); return funchost.ErrPoison })
		mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"x\""`))), http.StatusOK)
		if left != funchost.DefaultMargin/2 {
			t.Errorf("park had %v, want half of the margin", left)
		}
	})
}

func TestInvocationEndsBeforeTheHostKillsTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, h := queueApp(t, func(c *funchost.Config) { c.FunctionTimeout, c.Margin = 10*time.Minute, time.Minute },
			func(ctx context.Context, _ funchost.Message) error { <-ctx.Done(); return ctx.Err() })
		start := time.Now()
		mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"x\""`))), http.StatusInternalServerError)
		if took := time.Since(start); took != 9*time.Minute {
			t.Errorf("ended after %v, want 9m", took)
		}
	})
}

func TestPanicFailsOneInvocationAndLeavesOthersRunning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, h := queueApp(t, nil, func(_ context.Context, m funchost.Message) error {
			if string(m.Body) == "bad" {
				return []error{}[len(m.Body)]
			}
			time.Sleep(time.Minute)
			return nil
		})
		slow := make(chan int)
		go func() { slow <- do(h, request("POST", "/finalize", invocation(`"\"good\""`))).Code }()
		synctest.Wait()
		mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"bad\""`))), http.StatusInternalServerError)
		if code := <-slow; code != http.StatusOK {
			t.Errorf("the other invocation got %d", code)
		}
		if log := a.log.String(); !strings.Contains(log, "invoke_test.go") {
			t.Errorf("no stack in log %s", log)
		}
	})
}

func TestPanicValueStaysOutOfTheLog(t *testing.T) {
	a, h := queueApp(t, nil, func(context.Context, funchost.Message) error { panic("what was said") })
	mustBeAnswer(t, do(h, request("POST", "/finalize", invocation(`"\"x\""`))), http.StatusInternalServerError)
	if strings.Contains(a.log.String(), "what was said") {
		t.Errorf("log %s", a.log)
	}
}

func TestInvocationsWaitForASlotWithinTheirDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		running, most := 0, 0
		_, h := queueApp(t, func(c *funchost.Config) { c.MaxConcurrent = 1 }, func(context.Context, funchost.Message) error {
			running++
			most = max(most, running)
			time.Sleep(4 * time.Minute)
			running--
			return nil
		})
		codes := make(chan int)
		for range 4 {
			go func() { codes <- do(h, request("POST", "/finalize", invocation(`"\"x\""`))).Code }()
		}
		got := map[int]int{}
		for range 4 {
			got[<-codes]++
		}
		// Slots free up at 4 and 8 minutes; the deadline is at 9 and a half. The third run overstays it but succeeds.
		if most != 1 || got[http.StatusOK] != 3 || got[http.StatusServiceUnavailable] != 1 {
			t.Errorf("at most %d ran at once, statuses %v", most, got)
		}
	})
}

func TestCompressedInvocationIsRefused(t *testing.T) {
	_, h := queueApp(t, nil, func(context.Context, funchost.Message) error { t.Error("handled"); return nil })
	r := request("POST", "/finalize", invocation(`"\"x\""`))
	r.Header.Set("Content-Encoding", "gzip")
	mustBeAnswer(t, do(h, r), http.StatusUnsupportedMediaType)
}

func TestLogLinesCarryFunctionAndInvocation(t *testing.T) {
	var a app
	a, h := queueApp(t, func(c *funchost.Config) { c.Alarm = nil }, func(context.Context, funchost.Message) error {
		return errors.New("away")
	})
	do(h, request("POST", "/finalize", invocation(`"\"x\""`)))
	forged := request("POST", "/finalize", invocation(`"\"x\""`))
	forged.Header.Set("X-Azure-Functions-InvocationId", "a b\n{}")
	do(h, forged)
	lines := bytes.Split(bytes.TrimSpace([]byte(a.log.String())), []byte("\n"))
	want := []string{"b9f2c1de-0000-4000-8000-000000000001", ""}
	if len(lines) != len(want) {
		t.Fatalf("%d lines: %s", len(lines), a.log)
	}
	for i, line := range lines {
		var rec map[string]any
		if err := json.Unmarshal(line, &rec); err != nil {
			t.Fatalf("line %s: %v", line, err)
		}
		if rec[funchost.FunctionKey] != "finalize" || rec[funchost.InvocationKey] != want[i] {
			t.Errorf("line %s", line)
		}
	}
}

func BenchmarkQueueInvocation(b *testing.B) {
	_, h := queueApp(b, nil, func(context.Context, funchost.Message) error { return nil })
	for _, size := range []int{200, 2 << 10, 64 << 10} {
		body := `{"Data":{"item":` + quoted(b, `{"window":"`+strings.Repeat("x", size)+`"}`) + `},"Metadata":{"MessageId":"\"chat-export-7\"",` +
			`"DeliveryCount":"1","EnqueuedTime":"2026-11-21T03:18:20+00:00","ApplicationProperties":{},"sys":{"MethodName":"finalize"}}}`
		b.Run(fmt.Sprintf("%dB", size), func(b *testing.B) {
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if w := do(h, request("POST", "/finalize", strings.NewReader(body))); w.Code != http.StatusOK {
					b.Fatal(w.Code)
				}
			}
		})
	}
}
