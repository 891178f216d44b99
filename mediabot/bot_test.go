package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"steno/mediabot/internal/session"
	"steno/shared/conversation"
	"steno/shared/teams"
	"steno/tests/local/entra"
)

func pemOf(t *testing.T, cert tls.Certificate) (chain, key []byte) {
	t.Helper()
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestACallIsRecordedFromTheWebhookToTheQueue(t *testing.T) {
	r := newRecorder(t)
	path := r.record("call-1")
	if !r.has("status recording call-1") || !r.has("record call-1") {
		t.Fatal("recorded without announcing it")
	}
	if code := r.notify(path, "call-1", `{"state":"terminated","resultInfo":{"code":"200","subcode":"18503"}}`); code != http.StatusAccepted {
		t.Fatal(code)
	}
	r.seen("notice ended call-1 recorded")
	if log := r.log.String(); strings.Contains(log, "canary") || strings.Contains(log, path[strings.LastIndex(path, "/")+1:]) || strings.Contains(log, "8a34a46b") {
		t.Fatal("the log holds a token, a secret or an id of a person")
	}
}

func TestADrainFinishesCallsAndThenEndsTheProcess(t *testing.T) {
	r := newRecorder(t)
	path := r.record("call-1")
	r.pending.Store(true)
	close(r.drain)
	r.until("not ready", func() bool { return r.get(r.health+"/readyz") == http.StatusServiceUnavailable })
	if code := r.get(r.health + "/healthz"); code != http.StatusOK {
		t.Fatalf("a draining recorder is unhealthy: %d", code)
	}
	if code := r.notify("/incoming", "call-2", invitation("call-2")); code != http.StatusServiceUnavailable {
		t.Fatalf("a new invite is answered %d", code)
	}
	if code := r.notify(path, "call-1", `{"state":"terminated"}`); code != http.StatusAccepted {
		t.Fatal(code)
	}
	r.seen("notice ended call-1 recorded")
	select {
	case <-r.over:
		t.Fatal("ended while evidence was on its way")
	case <-time.After(3 * emptyEvery):
	}
	r.pending.Store(false)
	if err := <-r.over; err != nil {
		t.Fatal(err)
	}
	r.over <- nil
	if r.has("status failed call-1") {
		t.Fatal("a drained call was called failed")
	}
}

func TestACutShortRecorderSealsWhatItHas(t *testing.T) {
	r := newRecorder(t)
	r.record("call-1")
	r.cut()
	if err := <-r.over; err != nil {
		t.Fatal(err)
	}
	r.over <- nil
	for _, line := range []string{"finish call-1 lost", "status failed call-1", "hangup call-1", "notice ended call-1 lost"} {
		if !r.has(line) {
			t.Errorf("missing: %s", line)
		}
	}
}

func TestMaintenanceOfThisMachineDrainsAndIsReleased(t *testing.T) {
	r := newRecorder(t)
	r.events.Store(`{"Events":[{"EventId":"e-0","EventType":"Reboot","Resources":["bot_8"]},{"EventId":"e-1","EventType":"Terminate","Resources":["BOT_7"],"EventStatus":"Scheduled"}]}`)
	if err := <-r.over; err != nil {
		t.Fatal(err)
	}
	r.over <- nil
	if !r.has(`release {"StartRequests":[{"EventId":"e-1"}]}`) {
		t.Fatalf("the platform was not told: %v", r.lines)
	}
}

func TestControlNeedsItsRight(t *testing.T) {
	r := newRecorder(t)
	r.record("call-1")
	leg := string(conversation.LegOf(teams.TenantID(testTenant), "call-1"))
	person := entra.Person{ID: operator}
	with := func(changes ...any) string {
		c := r.entra.PersonClaims(person, audience, console1, controlRight)
		for i := 0; i+1 < len(changes); i += 2 {
			if c[changes[i].(string)] = changes[i+1]; changes[i+1] == nil {
				delete(c, changes[i].(string))
			}
		}
		return r.entra.Mint(c)
	}
	for name, token := range map[string]string{
		"none": "", "other audience": with("aud", testApp), "other scope": with("scp", "Archive.Read"), "no scope": with("scp", nil), "other client": with("azp", audience),
		"other tenant": with("tid", "11111111-1111-4111-8111-111111111111"), "no object id": with("oid", nil), "version 1": with("ver", "1.0"), "Teams' own": r.teamsToken(),
		"scope in an app token": with("idtyp", "app"), "expired": with("exp", time.Now().Add(-10*time.Minute).Unix()),
	} {
		for _, path := range []string{"/control/legs/" + leg + "/pause", "/control/drain"} {
			if code, _ := r.send(http.MethodPost, path, token, `{"reason":"x"}`); code != http.StatusUnauthorized {
				t.Errorf("%s at %s: %d", name, path, code)
			}
		}
		if code, _ := r.send(http.MethodGet, "/control/legs", token, ""); code != http.StatusUnauthorized {
			t.Errorf("%s: list: %d", name, code)
		}
	}
	if r.has("status notRecording call-1") || r.get(r.health+"/readyz") != http.StatusOK {
		t.Fatal("a refused token had an effect")
	}
	application := r.entra.Mint(r.entra.AppClaims(entra.Client{ID: console1, Roles: map[string][]string{audience: {controlRight}}}, audience))
	if code, body := r.send(http.MethodGet, "/control/legs", application, ""); code != http.StatusOK || !strings.Contains(body, `"recording":true`) {
		t.Fatalf("list: %d %s", code, body)
	}
}

func TestARecordingIsPausedAndResumedByWhoeverMay(t *testing.T) {
	r := newRecorder(t)
	r.record("call-1")
	leg := string(conversation.LegOf(teams.TenantID(testTenant), "call-1"))
	token := r.entra.Mint(r.entra.PersonClaims(entra.Person{ID: operator}, audience, console1, controlRight))
	for _, bad := range []string{"", "{", `{"reason":""}`, `{"reason":"a\u0000b"}`, `{"reason":"` + strings.Repeat("x", 300) + `"}`, `{"reason":7}`} {
		if code, _ := r.send(http.MethodPost, "/control/legs/"+leg+"/pause", token, bad); code != http.StatusBadRequest {
			t.Errorf("reason %.20q: %d", bad, code)
		}
	}
	for path, want := range map[string]int{
		"/control/legs/" + strings.Replace(leg, "leg-", "leg-0", 1)[:36] + "/pause": 404, "/control/legs/x/pause": 400, "/control/legs/" + leg + "/destroy": 404,
	} {
		if code, _ := r.send(http.MethodPost, path, token, `{"reason":"card"}`); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	if code, _ := r.send(http.MethodPost, "/control/legs/"+leg+"/pause", token, `{"reason":"card number"}`); code != http.StatusOK {
		t.Fatal(code)
	}
	if !r.has("pause paused " + operator + " card number") {
		t.Fatal("acknowledged before it was done")
	}
	r.seen("status notRecording call-1")
	if code, _ := r.send(http.MethodPost, "/control/legs/"+leg+"/resume", token, `{"reason":"done"}`); code != http.StatusOK {
		t.Fatal(code)
	}
	r.seen("resume call-1")
	if code, _ := r.send(http.MethodPost, "/control/drain", token, ""); code != http.StatusOK {
		t.Fatal(code)
	}
	r.until("not ready", func() bool { return r.get(r.health+"/readyz") == http.StatusServiceUnavailable })
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	r := newRecorder(t)
	dir := filepath.Dir(r.bot.certificate.cert)
	before, err := r.bot.certificate.get(nil)
	if err != nil {
		t.Fatal(err)
	}
	look := func() *tls.Certificate {
		r.bot.certificate.mu.Lock()
		r.bot.certificate.looked = time.Now().Add(-certificateLook)
		r.bot.certificate.mu.Unlock()
		c, err := r.bot.certificate.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if err := os.WriteFile(filepath.Join(dir, "bot.pem"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(filepath.Join(dir, "bot.pem"), time.Now(), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if c := look(); c != before || !strings.Contains(r.log.String(), "alarm=certificate") {
		t.Fatal("a torn certificate took the old one's place, or raised no alarm")
	}
	writeCertificate(t, dir)
	if c := look(); c == before {
		t.Fatal("the renewed certificate is not served")
	}
}

func TestEveryFaultOfTheConfigurationIsReportedAtOnce(t *testing.T) {
	s := newTeams(t)
	good := s.environment(t.TempDir())
	if _, _, err := readSettings(good); err != nil {
		t.Fatal(err)
	}
	faulty := append(good, "STENO_BOT_APPP=x", "STENO_TENANT_ID=contoso", "STENO_BOT_PUBLIC_URL=http://bot", "STENO_BOT_HEALTH_LISTEN=0.0.0.0:80", "STENO_GATEWAY_URL=http://10.0.0.1:1",
		"STENO_METADATA_URL=http://evil.example", "STENO_BOT_PATH=/", "STENO_VIDEO_SOCKETS=11", "STENO_CONTROL_CLIENTS=x", "ServiceBusConnection=Endpoint=canary")
	_, _, err := readSettings(faulty)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, key := range []string{"STENO_BOT_APPP: unknown", "STENO_TENANT_ID", "STENO_BOT_PUBLIC_URL", "STENO_BOT_HEALTH_LISTEN", "STENO_GATEWAY_URL", "STENO_METADATA_URL", "STENO_BOT_PATH", "STENO_VIDEO_SOCKETS", "STENO_CONTROL_CLIENTS", "ServiceBusConnection"} {
		if !strings.Contains(err.Error(), key) {
			t.Errorf("%s is not named", key)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Error("the error quotes a secret")
	}
}

func TestTheCommandLine(t *testing.T) {
	s := newTeams(t)
	good := s.environment(t.TempDir())
	for _, c := range []struct {
		args    []string
		environ []string
		code    int
		says    string
	}{
		{[]string{"-check-config"}, good, 0, ""},
		{[]string{"-check-config"}, nil, exitFault, "STENO_TENANT_ID: is required"},
		{[]string{"-unknown"}, good, exitUsage, "usage:"},
		{[]string{"dance"}, good, exitUsage, "usage:"},
		{[]string{"install", "now"}, good, exitUsage, "usage:"},
	} {
		var out strings.Builder
		if code := start(c.args, c.environ, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v: %d, says %q", c.args, code, out.String())
		}
	}
}

var _ session.Media = (*teamsStub)(nil)
