package main

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"steno/functions/internal/funchost"
)

type binding struct {
	Type      string `json:"type"`
	Direction string `json:"direction"`
	Name      string `json:"name"`
	Route     string `json:"route"`
	QueueName string `json:"queueName"`
	DataType  string `json:"dataType"`
	Schedule  string `json:"schedule"`
}

func triggerOf(t *testing.T, function string) binding {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(function, "function.json"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Bindings []binding }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, b := range doc.Bindings {
		if strings.HasSuffix(b.Type, "Trigger") {
			return b
		}
	}
	t.Fatalf("%s has no trigger", function)
	return binding{}
}

func TestEveryFunctionIsWhatItsFunctionJsonSays(t *testing.T) {
	mux, err := funchost.New(funchost.Config{RoutePrefix: routePrefix, FunctionTimeout: functionTimeout,
		Park: func(context.Context, funchost.Parked) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	register(mux, functions{})
	kinds := map[funchost.Trigger][]string{
		funchost.Timer: {"timerTrigger"}, funchost.Queue: {"serviceBusTrigger", "queueTrigger"}, funchost.HTTP: {"httpTrigger"},
	}
	for _, f := range mux.Functions() {
		tr := triggerOf(t, f.Name)
		if !slices.Contains(kinds[f.Trigger], tr.Type) {
			t.Errorf("%s: registered as %s, function.json says %s", f.Name, f.Trigger, tr.Type)
		}
		if f.Trigger == funchost.Queue && (f.Binding != tr.Name || tr.DataType != "binary") {
			t.Errorf("%s: binding %q, function.json says %q of data type %q, want binary", f.Name, f.Binding, tr.Name, tr.DataType)
		}
		if f.Trigger == funchost.HTTP && f.Route != tr.Route {
			t.Errorf("%s: route %q, function.json says %q", f.Name, f.Route, tr.Route)
		}
	}
}

func TestHostJsonSaysWhatTheHandlerBelieves(t *testing.T) {
	b, err := os.ReadFile("../host.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		FunctionTimeout string
		Extensions      struct {
			HTTP struct{ RoutePrefix string }
		}
		CustomHandler struct{ EnableProxyingHTTPRequest bool }
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Extensions.HTTP.RoutePrefix != routePrefix || doc.FunctionTimeout != "00:10:00" || functionTimeout.Minutes() != 10 || !doc.CustomHandler.EnableProxyingHTTPRequest {
		t.Errorf("host.json says %+v", doc)
	}
}

// sample reads local.settings.sample.json as an environment.
func sample(t *testing.T) map[string]string {
	t.Helper()
	b, err := os.ReadFile("../local.settings.sample.json")
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Values map[string]string }
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Values
}

func environ(m map[string]string) []string {
	out := []string{funchost.PortVariable + "=1"}
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	return out
}

func TestEverySettingStandsInTheSample(t *testing.T) {
	values := sample(t)
	_, r, _ := readSettings(environ(values))
	for _, k := range r.Keys() {
		if _, ok := values[k]; !ok && k != funchost.PortVariable {
			t.Errorf("%s is read and does not stand in local.settings.sample.json", k)
		}
	}
	known := r.Keys()
	for k := range values {
		if !slices.Contains(known, k) && k != "FUNCTIONS_WORKER_RUNTIME" {
			t.Errorf("%s stands in local.settings.sample.json and nobody reads it", k)
		}
	}
}

func TestTheSampleIsAConfigurationOnceItsPlaceholdersAreFilled(t *testing.T) {
	values := sample(t)
	for k, v := range values {
		v = strings.ReplaceAll(v, "<object id>", "11111111-1111-4111-8111-11111111111a")
		values[k] = strings.ReplaceAll(v, "<tenant id>", values["STENO_TENANT_ID"])
	}
	if _, _, err := readSettings(environ(values)); err != nil {
		t.Error(err)
	}
}

func TestRetentionSettingsThatWouldKeepWronglyAreRefused(t *testing.T) {
	for setting, want := range map[[2]string]string{
		{"STENO_DATA_POLICIES", `[{"name":"a","keep":"P0Y"}]`}:                                      "keeps nothing",
		{"STENO_DATA_POLICIES", `[{"name":"a","keep":"P1000Y"}]`}:                                   "100 years",
		{"STENO_DATA_POLICIES", `[{"name":"a","keep":"P1Y","modalities":["fax"]}]`}:                 "unknown modality",
		{"STENO_DATA_POLICIES", `[{"name":"a","keep":"P1Y"},{"name":"b","keep":"P2Y"}]`}:            "overlap",
		{"STENO_DATA_POLICIES", `[{"name":"a","keep":"P1Y","desks":["a-desk-that-nobody-is-on"]}]`}: "no role group of recorded users and no rule of teams has the desk",
		{"STENO_IMMUTABILITY_MODE", "locked"}:                                                       "want Locked or Unlocked",
		{"STENO_ERASURE_WAIT", "24h"}:                                                               "STENO_ERASURE_WAIT",
		{"STENO_DISPOSAL_CAP", "2"}:                                                                 "STENO_DISPOSAL_CAP",
		{"STENO_HOLD_GRACE", "0s"}:                                                                  "STENO_HOLD_GRACE",
	} {
		values := sample(t)
		for k, v := range values {
			v = strings.ReplaceAll(v, "<object id>", "11111111-1111-4111-8111-11111111111a")
			values[k] = strings.ReplaceAll(v, "<tenant id>", values["STENO_TENANT_ID"])
		}
		values[setting[0]] = setting[1]
		if _, _, err := readSettings(environ(values)); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), setting[0]) {
			t.Errorf("%s=%s: %v, want %q", setting[0], setting[1], err, want)
		}
	}
}

func TestSettingsOfRecoveryAuditAndStampsThatAreRefused(t *testing.T) {
	for setting, want := range map[[2]string]string{
		{"STENO_RECOVERY_KEY", "x"}:                           "neither PEM nor base64",
		{"STENO_VAULT_LOG_URL", "http://logs.example"}:        "STENO_VAULT_LOG_URL",
		{"STENO_VAULT_LOG_LAG", "1m"}:                         "STENO_VAULT_LOG_LAG", // the vault promises ten
		{"STENO_UNWRAP_CALLERS", "the portal"}:                "STENO_UNWRAP_CALLERS",
		{"STENO_UNWRAP_RATE", "0"}:                            "STENO_UNWRAP_RATE",
		{"STENO_TSA_URL", "https://tsa.example"}:              "STENO_TSA_ROOTS: is required",
		{"STENO_TSA_ROOTS", "-----BEGIN CERTIFICATE-----\nx"}: "without STENO_TSA_URL",
	} {
		values := sample(t)
		for k, v := range values {
			v = strings.ReplaceAll(v, "<object id>", "11111111-1111-4111-8111-11111111111a")
			values[k] = strings.ReplaceAll(v, "<tenant id>", values["STENO_TENANT_ID"])
		}
		values[setting[0]] = setting[1]
		if _, _, err := readSettings(environ(values)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s=%s: %v, want %q", setting[0], setting[1], err, want)
		}
	}
}

func TestSettingsOfNotificationsThatAreRefused(t *testing.T) {
	for setting, want := range map[[2]string]string{
		{"STENO_NOTIFICATION_URL", "http://steno.example/steno/notifications"}: "STENO_NOTIFICATION_URL",
		{"STENO_NOTIFICATION_URL", "https://steno.example/api/notifications"}:  "/steno/notifications",
		{"STENO_NOTIFICATION_APP", ""}:                                         "STENO_NOTIFICATION_APP",
		{"STENO_NOTIFICATION_APP", "steno"}:                                    "STENO_NOTIFICATION_APP",
		{"STENO_NOTIFICATION_MAX_USERS", "10000"}:                              "STENO_NOTIFICATION_MAX_USERS", // Graph's limit, others included
		{"STENO_NOTIFICATION_KEY_AGE", "1m"}:                                   "STENO_NOTIFICATION_KEY_AGE",
		{"STENO_NOTIFICATION_KEYS", "http://login.microsoftonline.com/x/keys"}: "STENO_NOTIFICATION_KEYS",
	} {
		values := sample(t)
		for k, v := range values {
			v = strings.ReplaceAll(v, "<object id>", "11111111-1111-4111-8111-11111111111a")
			values[k] = strings.ReplaceAll(v, "<tenant id>", values["STENO_TENANT_ID"])
		}
		values["STENO_NOTIFICATION_URL"], values["STENO_NOTIFICATION_APP"] = "https://steno.example/steno/notifications", values["STENO_TENANT_ID"]
		values[setting[0]] = setting[1]
		if _, _, err := readSettings(environ(values)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s=%s: %v, want %q", setting[0], setting[1], err, want)
		}
	}
	values := sample(t)
	for k, v := range values {
		v = strings.ReplaceAll(v, "<object id>", "11111111-1111-4111-8111-11111111111a")
		values[k] = strings.ReplaceAll(v, "<tenant id>", values["STENO_TENANT_ID"])
	}
	if s, _, err := readSettings(environ(values)); err != nil || s.notify.URL != "" || s.notifyApp != "" {
		t.Errorf("without an address: %v", err)
	}
}

func TestAllFaultsOfAConfigurationAreReportedAtOnce(t *testing.T) {
	values := sample(t)
	values["STENO_TENANT_ID"] = "contoso"
	values["STENO_ROLE_GROUPS"] = `[{"role":"king","group":""}]`
	values["STENO_EXPORT_LAG"] = "soon"
	values["STENO_GRAPH_URL"] = "http://graph.microsoft.com"
	values["STENO_EXPRT_PERIOD"] = "24h" // a misspelled key
	values["STENO_SIGNING_KEYS_REVOKED"] = strings.Repeat("AB", 32)
	values["ServiceBusConnection"] = "Endpoint=sb://x;SharedAccessKey=hidden-value"
	delete(values, "STENO_BLOB_URL")
	_, _, err := readSettings(environ(values))
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"STENO_TENANT_ID", "STENO_ROLE_GROUPS", "king", "STENO_EXPORT_LAG", "STENO_GRAPH_URL", "STENO_EXPRT_PERIOD: unknown", "STENO_SIGNING_KEYS_REVOKED", "STENO_BLOB_URL", "ServiceBusConnection"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the report does not name %s:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hidden-value") {
		t.Error("the report prints a secret")
	}
}
