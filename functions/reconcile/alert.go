package reconcile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"steno/shared/teams"
)

// Alert is something that whoever runs Steno should know now. It names no person and holds no
// content, since it leaves the system.
type Alert struct {
	Name  string    `json:"alarm"` // the word that the log's line has too
	Day   string    `json:"day,omitempty"`
	Count int64     `json:"count,omitempty"`
	Text  string    `json:"text"`
	At    time.Time `json:"at"`
}

// Alerter takes alerts to people.
type Alerter interface {
	Alert(ctx context.Context, a Alert) error
}

// alert raises what a run has found so far: a line of the log first, then everybody else. One
// who cannot be reached keeps nothing else from happening, and is an alarm of its own.
func (r *coverageRun) alert(ctx context.Context) {
	for _, a := range r.alerts {
		a.At = r.now
		r.log.ErrorContext(ctx, a.Text, slog.String("alarm", a.Name), slog.String("day", a.Day), slog.Int64("count", a.Count))
		for _, to := range r.s.Alerters {
			if err := to.Alert(ctx, a); err != nil {
				r.log.ErrorContext(ctx, "an alert could not be delivered", slog.String("alarm", "alert-undelivered"), slog.String("of", a.Name), slog.String("cause", err.Error()))
			}
		}
	}
	r.alerts = nil
}

// alertTimeout bounds one delivery.
const alertTimeout = 10 * time.Second

// Webhook delivers alerts as JSON to an https address.
type Webhook struct {
	address string
	client  *http.Client
}

// NewWebhook returns the alerter at an https address. The address is a secret, since those of
// chats and pagers carry their key in it: no error and no log shows it. Redirects are not followed.
func NewWebhook(address string, transport http.RoundTripper) *Webhook {
	return &Webhook{address, &http.Client{
		Transport: transport, Timeout: alertTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Alert posts the alert. Any answer of 200 to 299 counts as taken.
func (h *Webhook) Alert(ctx context.Context, a Alert) (err error) {
	body, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.address, bytes.NewReader(body))
	if err != nil {
		return errors.New("post alert: the address is none")
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(req)
	if u := new(url.Error); errors.As(err, &u) {
		err = u.Err
	}
	if err != nil {
		return fmt.Errorf("post alert: %w", err)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return fmt.Errorf("post alert: read answer: %w", err)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return fmt.Errorf("post alert: the webhook answers %d", resp.StatusCode)
	}
	return nil
}

// Mailer sends mail; package msgraph does.
type Mailer interface {
	SendMail(ctx context.Context, from teams.PersonID, to []string, subject, text string) error
}

// Mail delivers alerts by mail.
type Mail struct {
	Mailer Mailer
	From   teams.PersonID // whose mailbox it comes from
	To     []string
}

// Alert sends one mail.
func (m Mail) Alert(ctx context.Context, a Alert) error {
	text := a.Text + "\n\n"
	if a.Day != "" {
		text += "Day: " + a.Day + " (UTC)\n"
	}
	if a.Count > 0 {
		text += fmt.Sprintf("Count: %d\n", a.Count)
	}
	text += "At: " + a.At.Format(time.RFC3339) + "\nAlarm: " + a.Name + "\n"
	if err := m.Mailer.SendMail(ctx, m.From, m.To, "Steno: "+a.Name, text); err != nil {
		return fmt.Errorf("mail alert: %w", err)
	}
	return nil
}
