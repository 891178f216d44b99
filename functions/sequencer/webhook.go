package sequencer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"steno/shared/custody"
)

// webhookTimeout bounds one call: a run must not hang on somebody else's server.
const webhookTimeout = 10 * time.Second

// Webhook is a witness behind an HTTPS address: a mailer, a chat, a log of another company.
type Webhook struct {
	address string
	client  *http.Client
}

// NewWebhook returns the witness at an https address. The address is a secret, since those
// of mailers carry their key in it: no error and no log shows it. Redirects are not followed.
func NewWebhook(address string, transport http.RoundTripper) *Webhook {
	return &Webhook{address, &http.Client{
		Transport: transport, Timeout: webhookTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// posted is what a webhook gets. Text and signature are all there is to verify; the rest
// is for people.
type posted struct {
	Origin      string    `json:"origin"`
	Text        string    `json:"text"`
	Signature   []byte    `json:"signature"` // base64 of DER
	Fingerprint string    `json:"fingerprint"`
	At          time.Time `json:"at"`
}

// Keep posts the checkpoint as JSON. Any answer of 200 to 299 counts as taken.
func (h *Webhook) Keep(ctx context.Context, origin string, s custody.Signed) error {
	body, err := json.Marshal(posted{origin, s.Text, s.Signature, custody.Fingerprint(s.PublicKey), s.At})
	if err != nil {
		return fmt.Errorf("post checkpoint: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.address, bytes.NewReader(body))
	if err != nil {
		return errors.New("post checkpoint: the address is none")
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(r)
	if err != nil {
		return fmt.Errorf("post checkpoint: %w", withoutAddress(err))
	}
	_, rerr := io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if cerr := resp.Body.Close(); rerr == nil {
		rerr = cerr
	}
	switch {
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return fmt.Errorf("post checkpoint: the witness answers %d", resp.StatusCode)
	case rerr != nil:
		return fmt.Errorf("post checkpoint: read answer: %w", withoutAddress(rerr))
	}
	return nil
}

// withoutAddress takes an error of net/http out of the text that shows the address.
func withoutAddress(err error) error {
	if u := new(url.Error); errors.As(err, &u) {
		return u.Err
	}
	return err
}
