package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

const progressFormat = "steno-reconcile/1"

// progress is what a run hands to the next.
type progress struct {
	Format string `json:"format"`
	// To is up to when the vault's log is audited.
	To time.Time `json:"to,omitzero"`
	// Used is how many unwraps before To are put down to receipts that are alive at it.
	Used map[string]int `json:"used,omitempty"`
	// Heard is when the log last had something, or its silence was last told; Opened counts
	// the receipts since.
	Heard  time.Time `json:"heard,omitzero"`
	Opened int       `json:"opened,omitempty"`
	// Off is the last day on which it was said that the audit is off.
	Off string `json:"off,omitempty"`
}

func decodeProgress(body []byte) (progress, error) {
	p := progress{Format: progressFormat}
	if len(body) == 0 {
		return p, nil
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&p); err != nil {
		return p, fmt.Errorf("progress cannot be read; remove it to begin anew: %w", err)
	}
	if p.Format != progressFormat {
		return p, fmt.Errorf("progress of format %q, want %s", p.Format, progressFormat)
	}
	return p, nil
}

// keep remembers what is put down to receipts that go on beyond a time.
func (s *progress) keep(receipts []*receipt, to time.Time) {
	s.Used = map[string]int{}
	for _, r := range receipts {
		if r.used > 0 && !r.until().Before(to) {
			s.Used[r.id] = r.used
		}
	}
}

// save stores the progress and returns its revision.
func (p *pass) save(ctx context.Context, revision string) (string, error) {
	body, err := json.Marshal(p.state)
	if err == nil {
		err = p.s.State.SwapHead(ctx, body, revision)
	}
	if err == nil {
		_, revision, err = p.s.State.Head(ctx)
	}
	if err != nil {
		return "", fmt.Errorf("store progress: %w", err)
	}
	return revision, nil
}

// off says once a day that nothing is audited.
func (p *pass) off(ctx context.Context, revision string) error {
	today := p.start.Format(time.DateOnly)
	if p.state.Off == today {
		return nil
	}
	p.log.WarnContext(ctx, "the audit of unwraps is off: no log of the vault is configured (STENO_VAULT_LOG_URL)", slog.String("alarm", "unwrap-audit"))
	p.state.Off = today
	if _, err := p.save(ctx, revision); err != nil {
		return fmt.Errorf("reconcile: %w", err)
	}
	return nil
}
