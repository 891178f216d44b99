package reconcile_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"steno/functions/reconcile"
	"steno/shared/custody"
	"steno/shared/teams"
)

func TestAnAlertReachesAWebhookAndAMailboxAndNamesNobody(t *testing.T) {
	got := make(chan string, 1)
	hook := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		got <- string(b)
	}))
	defer hook.Close()
	a := reconcile.Alert{Name: "capture-gap", Day: "2026-03-10", Count: 2, Text: "Recorded users were in calls.", At: night}
	if err := reconcile.NewWebhook(hook.URL+"/secret", hook.Client().Transport).Alert(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	var back reconcile.Alert
	if err := json.Unmarshal([]byte(<-got), &back); err != nil || back != a {
		t.Errorf("posted %+v, %v", back, err)
	}
	hook.Close()
	if err := reconcile.NewWebhook(hook.URL+"/secret", hook.Client().Transport).Alert(t.Context(), a); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("an address that nobody answers at: %v", err)
	}
	var m mailer
	if err := (reconcile.Mail{Mailer: &m, From: rita, To: []string{"desk@contoso.example"}}).Alert(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if m.subject != "Steno: capture-gap" || !strings.Contains(m.text, "Count: 2") || !strings.Contains(m.text, "2026-03-10") {
		t.Errorf("mailed %q: %q", m.subject, m.text)
	}
}

type mailer struct{ subject, text string }

func (m *mailer) SendMail(_ context.Context, _ teams.PersonID, _ []string, subject, text string) error {
	m.subject, m.text = subject, text
	return nil
}

func TestAnAlertThatCannotBeDeliveredIsAnAlarmAndStopsNothing(t *testing.T) {
	o := newOffice(t)
	o.graph.call(1, 9, 30, rita)
	c := o.config
	c.Now = func() time.Time { return o.now }
	err := reconcile.NewCoverage(c, reconcile.CoverageStores{
		Roster: &o.roster, Catalog: &o.catalog, Recorded: &o.catalog, Failures: &o.failures, Files: &o.catalog, Records: &o.records, Statements: &o.statements, Trail: custody.Log{Trail: &o.trail, Now: c.Now}, State: &o.state,
		Graph: &o.graph, Signer: signer{o}, Alerters: []reconcile.Alerter{deaf{}, alerter{o}},
	}, slog.New(slog.NewTextHandler(&o.log, nil))).Run(t.Context())
	o.must(err)
	if len(o.alerts) == 0 || !strings.Contains(o.log.String(), "alarm=alert-undelivered") {
		t.Errorf("%d alerts; log %s", len(o.alerts), o.log.String())
	}
}

type deaf struct{}

func (deaf) Alert(context.Context, reconcile.Alert) error { return errors.New("no answer") }
