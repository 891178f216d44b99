package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// clientTimeout bounds a request; a scripted one may wait for its ticks to be sent.
const clientTimeout = 20 * time.Second

// client asks the gateway as the recorder does.
type client struct {
	base, token string
	http        *http.Client
}

func newClient(base, token string) *client {
	return &client{strings.TrimSuffix(base, "/"), token, &http.Client{Timeout: clientTimeout}}
}

type health struct {
	Status     string
	InstanceID string
	Contract   string
	Features   []string
	Calls      struct{ Now, Max int }
}

func (c *client) health(ctx context.Context) (health, error) {
	var h health
	res, err := c.do(ctx, http.MethodGet, "/v1/health", nil, nil)
	if err != nil {
		return h, err
	}
	if res.status != http.StatusOK && res.status != http.StatusServiceUnavailable {
		return h, fmt.Errorf("%d %s", res.status, res.body)
	}
	return h, json.Unmarshal(res.body, &h)
}

type response struct {
	status int
	header http.Header
	body   []byte
}

// code is the problem's code, empty if the body is no problem.
func (r response) code() string {
	var p struct{ Code string }
	if !strings.HasPrefix(r.header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(r.body, &p) != nil {
		return ""
	}
	return p.Code
}

// do makes a request. body is encoded unless it is bytes already; change may alter the request.
func (c *client) do(ctx context.Context, method, path string, body any, change func(*http.Request)) (response, error) {
	raw, ok := body.([]byte)
	if !ok && body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return response{}, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(raw))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("X-Request-Id", fmt.Sprintf("conformance-%d", time.Now().UnixNano()))
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if change != nil {
		change(req)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return response{}, err
	}
	out, err := io.ReadAll(res.Body)
	return response{res.StatusCode, res.Header, out}, errors.Join(err, res.Body.Close())
}

// ask makes a request that must get through, whatever the answer.
func (t *trial) ask(method, path string, body any) response {
	res, err := t.client.do(t.ctx, method, path, body, nil)
	if err != nil {
		t.fatalf("%s %s: %v", method, path, err)
	}
	return res
}

// demand makes a request whose status must be this one; into, if not nil, receives the body.
func (t *trial) demand(status int, method, path string, body, into any) response {
	res := t.ask(method, path, body)
	if res.status != status {
		t.fatalf("%s %s: %d %s, want %d", method, path, res.status, bytes.TrimSpace(res.body), status)
	}
	if into != nil {
		if err := json.Unmarshal(res.body, into); err != nil {
			t.fatalf("%s %s: %v", method, path, err)
		}
	}
	return res
}

// refuses makes a request that must be refused with this status and code.
func (t *trial) refuses(status int, code, method, path string, body any) response {
	res := t.ask(method, path, body)
	t.refused(res, status, code, method+" "+path)
	return res
}

func (t *trial) refused(res response, status int, code, what string) {
	if res.status != status || res.code() != code {
		t.errorf("%s: %d %q, want %d %q", what, res.status, res.code(), status, code)
	}
}

// control changes how the gateway under test is.
func (t *trial) control(change map[string]any) {
	t.demand(http.StatusOK, http.MethodPost, "/v1/test/control", change, nil)
}

// advance moves the gateway's clock of leases and expiries.
func (t *trial) advance(d time.Duration) {
	t.control(map[string]any{"advanceMs": d.Milliseconds()})
}

type callInfo struct {
	CallID, SessionID, State, Gate, Mode string
	Bindings                             []struct{ Track, Source string }
	Counters                             struct {
		Ticks, Gated, Silent, Queued, KeyFrames int64
		Frames, Dropped                         map[string]int64
	}
}

// info finds a call in the list, and whether it is there.
func (t *trial) info(id string) (callInfo, bool) {
	var list struct{ Calls []callInfo }
	t.demand(http.StatusOK, http.MethodGet, "/v1/calls", nil, &list)
	for _, c := range list.Calls {
		if c.CallID == id {
			return c, true
		}
	}
	return callInfo{}, false
}
