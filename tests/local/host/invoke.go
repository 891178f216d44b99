package host

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

const (
	hostVersion   = "4.1052.0"
	maxAnswer     = 100 << 20
	maxKept       = 10_000 // invocations kept for Invocations
	maxHeaderShow = 200    // of an answer quoted in an error
)

// Invocation is one call of a function and how it ended.
type Invocation struct {
	ID       string
	Function string
	Trigger  string // binding type, such as queueTrigger
	Start    time.Time
	Duration time.Duration
	Status   int   // of the handler's answer, 0 if there was none
	Err      error // nil if the host counts it as succeeded
}

// OK reports whether the host counts the invocation as succeeded.
func (i Invocation) OK() bool { return i.Err == nil }

// ErrHang is the error of an invocation that the real host would never end.
var ErrHang = errors.New("the real host hangs on this answer until functionTimeout and then kills the handler")

// answerEnvelope is what a handler answers in envelope mode. Go matches the names without regard to case, as the host does.
type answerEnvelope struct {
	Outputs     map[string]json.RawMessage
	Logs        []string
	ReturnValue json.RawMessage
}

// invoke calls a function in envelope mode and returns its answer, or why the host counts the call as failed.
func (h *Host) invoke(ctx context.Context, f *function, value any, metadata []field) (*answerEnvelope, error) {
	inv := Invocation{ID: newGUID(), Function: f.name, Trigger: f.trigger.Type, Start: time.Now()}
	h.inflight.Add(1)
	defer h.inflight.Add(-1)
	metadata = append(metadata[:len(metadata):len(metadata)], field{"sys", []field{
		{"MethodName", f.name},
		{"UtcNow", inv.Start.UTC().Format("2006-01-02T15:04:05.0000000Z")},
		{"RandGuid", newGUID()},
	}})
	var ans *answerEnvelope
	body, err := encodeEnvelope(f.trigger.Name, value, metadata)
	if err == nil {
		ans, inv.Status, err = h.call(ctx, f, inv.ID, body)
	}
	inv.Err, inv.Duration = err, time.Since(inv.Start)
	h.record(inv)
	return ans, err
}

func (h *Host) record(inv Invocation) {
	if inv.Err != nil {
		h.console.infof("function %s failed after %v: %v", inv.Function, inv.Duration.Round(time.Millisecond), inv.Err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.invocations) == maxKept {
		h.invocations = append(h.invocations[:0], h.invocations[maxKept/2:]...)
	}
	h.invocations = append(h.invocations, inv)
}

// call sends one envelope. On functionTimeout it kills the handler with all that runs in it, as the host does.
func (h *Host) call(ctx context.Context, f *function, id string, body []byte) (*answerEnvelope, int, error) {
	p, err := h.worker.await(ctx)
	if err != nil {
		return nil, 0, err
	}
	timeout := time.Duration(h.app.host.FunctionTimeout)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// A reader of no known type has no length, so the body goes out in chunks, as the host's ObjectContent does.
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.addr+"/"+f.name, io.MultiReader(bytes.NewReader(body)))
	if err != nil {
		return nil, 0, fmt.Errorf("call handler: %w", err)
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("X-Azure-Functions-InvocationId", id)
	req.Header.Set("X-Azure-Functions-HostVersion", hostVersion)
	req.Header.Set("User-Agent", "Azure-Functions-Host/"+hostVersion)
	resp, err := h.calls.Do(req)
	if err != nil {
		if ctx.Err() == context.DeadlineExceeded {
			h.worker.expel(p)
			err = fmt.Errorf("no answer within functionTimeout %v; handler killed", timeout)
			h.console.errorf("function %s: %v", f.name, err)
		}
		return nil, 0, fmt.Errorf("call handler: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, resp.StatusCode, fmt.Errorf("read answer: %w", err)
	}
	ans, err := h.judgeAnswer(f, resp, answer)
	return ans, resp.StatusCode, err
}

// judgeAnswer applies the host's rules to an answer.
func (h *Host) judgeAnswer(f *function, resp *http.Response, body []byte) (*answerEnvelope, error) {
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return nil, fmt.Errorf("handler answered %d: %.*q", resp.StatusCode, maxHeaderShow, body)
	}
	if len(bytes.TrimSpace(body)) == 0 || string(bytes.TrimSpace(body)) == "null" {
		err := fmt.Errorf("handler answered %d with the body %q: %w", resp.StatusCode, body, ErrHang)
		h.console.errorf("function %s: %v", f.name, err)
		return nil, err
	}
	media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && media != "text/json" && !strings.HasSuffix(media, "+json") {
		return nil, fmt.Errorf("no MediaTypeFormatter reads the content type %q of the answer", resp.Header.Get("Content-Type"))
	}
	var ans answerEnvelope
	if err := json.Unmarshal(body, &ans); err != nil {
		return nil, fmt.Errorf("answer is not the envelope: %w", err)
	}
	for _, l := range ans.Logs {
		h.console.line(Information, "Function."+f.name+".User", l)
	}
	if f.output == "" && len(ans.Outputs) > 0 {
		return nil, fmt.Errorf("%d outputs without an output binding", len(ans.Outputs))
	}
	h.flagBase64(f, ans)
	return &ans, nil
}

// flagBase64 complains about text that the host would silently turn into bytes.
func (h *Host) flagBase64(f *function, ans answerEnvelope) {
	check := func(name string, raw json.RawMessage) {
		var s string
		if json.Unmarshal(raw, &s) != nil || s == "" {
			return
		}
		if _, err := base64.StdEncoding.DecodeString(s); err == nil {
			h.console.errorf("function %s: output %s is valid base64: the host decodes it to bytes", f.name, name)
		}
	}
	for name, raw := range ans.Outputs {
		check(name, raw)
	}
	check("ReturnValue", ans.ReturnValue)
}
