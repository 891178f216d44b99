package bench_test

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/data/aztables"

	"steno/shared/azure"
	"steno/shared/notification"
	"steno/shared/teams"
	"steno/tests/sim"
	"steno/tests/world"
)

// What the webhook is measured with: as many notifications a second as Graph would send for a
// tenant of some thousands who are all talking, in deliveries as small as Graph makes them
// when little is said and as large as it makes them when much is.
const (
	webhookRate    = 500 // notifications a second
	webhookSeconds = 8
	webhookBar     = 500 * time.Millisecond // of 99 in 100 answers; Graph waits three seconds
)

// deliveries makes requests of Graph for a subscription of the world's register.
func deliveries(t *testing.T, b *benchWorld, each, count int) [][]byte {
	t.Helper()
	tables, err := aztables.NewServiceClient(b.Storage.TableURL, b.Credential, &aztables.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: b.CA.Client()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Host.RunTimer(t.Context(), "subscriptions"); err != nil { // which makes a key pair
		t.Fatal(err)
	}
	register := azure.NewSubscriptions(teams.TenantID(b.Tenant.ID()), tables)
	certs, err := register.Certificates(t.Context())
	if err != nil || len(certs) != 1 {
		t.Fatalf("%d certificates, %v", len(certs), err)
	}
	cert, err := x509.ParseCertificate(certs[0].DER)
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint("bench-", each)
	state, digest := notification.NewState()
	err = register.Save(t.Context(), notification.Subscription{
		ID: id, Resource: notification.Resource{Custodian: teams.PersonID(b.custodian)}, State: digest, Certificate: certs[0].ID,
		Expires: time.Now().Add(time.Hour), Renewed: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	content, err := sim.Encrypt(cert.PublicKey.(*rsa.PublicKey), certs[0].ID, []byte(`{"id":"1","body":"`+words+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for n := range count {
		token, err := b.Tenant.ValidationToken(world.App, nil)
		if err != nil {
			t.Fatal(err)
		}
		var items []any
		for i := range each {
			items = append(items, map[string]any{
				"subscriptionId": id, "clientState": state, "tenantId": b.Tenant.ID(), "changeType": "created",
				"resource": fmt.Sprintf("chats('19:bench@thread.v2')/messages('%d')", n*each+i), "encryptedContent": content,
			})
		}
		body, err := json.Marshal(map[string]any{"value": items, "validationTokens": []string{token}})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, body)
	}
	return out
}

// TestTheWebhookKeepsUpWithALargeTenant sends through the built handler, its host, TLS and the
// queue, all of them and the sender on this machine, at a rate that does not wait for answers.
func TestTheWebhookKeepsUpWithALargeTenant(t *testing.T) {
	b := startWorld(t)
	client := b.CA.Client()
	client.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	for _, each := range []int{1, 20} {
		bodies := deliveries(t, b, each, webhookRate*webhookSeconds/each)
		took := make([]time.Duration, len(bodies))
		var group sync.WaitGroup
		var mu sync.Mutex
		refused := 0
		pause := time.Second * time.Duration(each) / webhookRate
		tick := time.NewTicker(pause)
		start := time.Now()
		for i, body := range bodies {
			<-tick.C
			group.Go(func() {
				began := time.Now()
				status, err := deliver(t.Context(), client, b.Origin+"/steno/notifications", body)
				took[i] = time.Since(began)
				if err != nil || status != http.StatusAccepted {
					mu.Lock()
					refused++
					mu.Unlock()
				}
			})
		}
		group.Wait()
		tick.Stop()
		rate := float64(len(bodies)*each) / time.Since(start).Seconds()
		slices.Sort(took)
		p99 := took[len(took)*99/100]
		fmt.Printf("\n%-44s %9.0f/s  p50 %s, p99 %s, bar %s, %d refused\n", fmt.Sprintf("notifications, %d a delivery", each), rate,
			took[len(took)/2].Round(time.Millisecond), p99.Round(time.Millisecond), webhookBar, refused)
		if refused > 0 || p99 > webhookBar || rate < 0.95*webhookRate {
			t.Errorf("%d a delivery: %.0f/s, p99 %s, %d refused", each, rate, p99, refused)
		}
	}
}

func deliver(ctx context.Context, c *http.Client, url string, body []byte) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}
