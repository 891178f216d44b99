package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"
)

// maintenance follows the platform's scheduled events for this machine: before it is
// taken away or interrupted the recorder drains, and once it is empty it says so, since
// the platform need not wait any longer then.
// https://learn.microsoft.com/azure/virtual-machines/windows/scheduled-events
type maintenance struct {
	base  string // http://169.254.169.254
	every time.Duration
	http  *http.Client
	log   *slog.Logger

	machine string   // as the platform names it
	pending []string // events that made the recorder drain
}

const (
	maintenanceEvery   = 15 * time.Second
	maintenanceVersion = "2020-07-01"
	maintenanceBytes   = 1 << 20
)

func newMaintenance(base string, log *slog.Logger) *maintenance {
	return &maintenance{base: base, every: maintenanceEvery, log: log, http: &http.Client{
		Timeout:       10 * time.Second, // the first request after a long time can take minutes, and is repeated
		Transport:     &http.Transport{Proxy: nil},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// disturbing are the events that interrupt media.
var disturbing = []string{"Terminate", "Preempt", "Reboot", "Redeploy", "Freeze"}

type scheduledEvents struct {
	Events []struct {
		ID        string   `json:"EventId"`
		Type      string   `json:"EventType"`
		Status    string   `json:"EventStatus"`
		Resources []string `json:"Resources"`
		NotBefore string   `json:"NotBefore"`
	} `json:"Events"`
}

// run calls drain once something is scheduled, and returns then; nil if ctx ends first.
func (m *maintenance) run(ctx context.Context, drain func()) error {
	tick := time.NewTicker(m.every)
	defer tick.Stop()
	silent := false
	for {
		found, err := m.look(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !silent:
			m.log.WarnContext(ctx, "scheduled events not read", slog.String("cause", err.Error()))
		case found:
			drain()
			return nil
		}
		silent = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// look asks once. A scale set tells each machine of the events of others, too.
func (m *maintenance) look(ctx context.Context) (bool, error) {
	if m.machine == "" {
		b, err := m.ask(ctx, http.MethodGet, "/metadata/instance/compute/name?api-version=2021-02-01&format=text", nil)
		if err != nil {
			return false, err
		}
		m.machine = strings.TrimSpace(string(b))
	}
	b, err := m.ask(ctx, http.MethodGet, "/metadata/scheduledevents?api-version="+maintenanceVersion, nil)
	if err != nil {
		return false, err
	}
	var doc scheduledEvents
	if err := json.Unmarshal(b, &doc); err != nil {
		return false, errors.New("scheduled events are not JSON")
	}
	for _, e := range doc.Events {
		ours := slices.ContainsFunc(e.Resources, func(r string) bool { return strings.EqualFold(r, m.machine) })
		if !ours || !slices.Contains(disturbing, e.Type) || slices.Contains(m.pending, e.ID) {
			continue
		}
		m.log.WarnContext(ctx, "maintenance scheduled", slog.String("alarm", "maintenance"), slog.String("event", e.Type), slog.String("notBefore", e.NotBefore))
		m.pending = append(m.pending, e.ID)
	}
	return len(m.pending) > 0, nil
}

// release tells the platform that it need not wait for what made the recorder drain.
func (m *maintenance) release(ctx context.Context) error {
	if len(m.pending) == 0 {
		return nil
	}
	type start struct {
		ID string `json:"EventId"`
	}
	var body struct {
		Start []start `json:"StartRequests"`
	}
	for _, id := range m.pending {
		body.Start = append(body.Start, start{id})
	}
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	_, err = m.ask(ctx, http.MethodPost, "/metadata/scheduledevents?api-version="+maintenanceVersion, b)
	return err
}

func (m *maintenance) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, m.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Metadata", "true")
	resp, err := m.http.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maintenanceBytes))
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metadata service answered %d", resp.StatusCode)
	}
	return b, nil
}
