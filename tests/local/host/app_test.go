package host_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"steno/tests/local/host"
)

func TestFaultyAppIsRefusedWithTheReason(t *testing.T) {
	for name, tt := range map[string]struct {
		path, text, want string
	}{
		"no host.json":      {"host.json", "", "host.json"},
		"version":           {"host.json", `{"version":"1.0"}`, "must be 2.0"},
		"no executable":     {"host.json", `{"version":"2.0"}`, "defaultExecutablePath is empty"},
		"time span":         {"host.json", strings.Replace(hostJSON, "00:10:00", "10m", 1), "not [d.]hh:mm:ss"},
		"forwarding":        {"host.json", strings.Replace(hostJSON, "enableProxying", "enableForwarding", 1), "only proxying"},
		"no auto-complete":  {"host.json", strings.Replace(hostJSON, `"maxConcurrentCalls": 4`, `"autoCompleteMessages": false`, 1), "delivered for ever"},
		"name":              {"9ok/function.json", timerJSON, "invalid name"},
		"reserved name":     {"host/function.json", timerJSON, "invalid name"},
		"case":              {"OK/function.json", timerJSON, "by case alone"},
		"JSON":              {"x/function.json", `{`, "load function x"},
		"no trigger":        {"x/function.json", `{"bindings":[]}`, "0 triggers"},
		"two triggers":      {"x/function.json", `{"bindings":[{"type":"timerTrigger","name":"a"},{"type":"queueTrigger","name":"b"}]}`, "2 triggers"},
		"shared name":       {"x/function.json", `{"bindings":[{"type":"httpTrigger","name":"a"},{"type":"http","direction":"out","name":"a"}]}`, "not unique"},
		"unknown trigger":   {"x/function.json", `{"bindings":[{"type":"blobTrigger","name":"a"}]}`, "unknown"},
		"unknown binding":   {"x/function.json", `{"bindings":[{"type":"httpTrigger","name":"a"},{"type":"blob","direction":"out","name":"b"}]}`, "unknown"},
		"schedule":          {"x/function.json", `{"bindings":[{"type":"timerTrigger","name":"a","schedule":"often"}]}`, "not six"},
		"unset setting":     {"x/function.json", `{"bindings":[{"type":"timerTrigger","name":"a","schedule":"%NOWHERE%"}]}`, "%NOWHERE% does not resolve"},
		"no queue":          {"x/function.json", `{"bindings":[{"type":"queueTrigger","name":"a"}]}`, "no queueName"},
		"batch":             {"x/function.json", `{"bindings":[{"type":"serviceBusTrigger","name":"a","queueName":"q","cardinality":"many"}]}`, "batches"},
		"retry on a queue":  {"x/function.json", `{"bindings":[{"type":"queueTrigger","name":"a","queueName":"q"}],"retry":{}}`, "no effect"},
		"route":             {"x/function.json", `{"bindings":[{"type":"httpTrigger","name":"a","route":"{*all}/x"}]}`, "segment"},
		"no bus connection": {"x/function.json", `{"bindings":[{"type":"serviceBusTrigger","name":"a","queueName":"q","connection":"Bus"}]}`, "neither Bus nor"},
		"no storage":        {"x/function.json", `{"bindings":[{"type":"queueTrigger","name":"a","queueName":"q"}]}`, "neither AzureWebJobsStorage nor"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := stage(t, timers("ok"))
			path := filepath.Join(dir, tt.path)
			if tt.text == "" {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			} else {
				write(t, path, tt.text)
			}
			h, err := host.Start(t.Context(), host.Config{ScriptRoot: dir})
			if err == nil {
				h.Stop()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("started with %v, want %q", err, tt.want)
			}
		})
	}
}

func TestFoldersBelowAFolderAreNotFunctions(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "host.json"), hostJSON)
	write(t, filepath.Join(dir, "functions", "ok", "function.json"), timerJSON)
	if _, err := host.Start(t.Context(), host.Config{ScriptRoot: dir}); err == nil || !strings.Contains(err.Error(), "no function found") {
		t.Errorf("started with %v", err)
	}
}

func TestDisabledFunctionIsNotLoaded(t *testing.T) {
	h := start(t, timers("ok", "fail"), func(c *host.Config) { c.Settings = map[string]string{"AzureWebJobs.fail.Disabled": "true"} })
	if err := h.RunTimer(t.Context(), "fail"); err == nil || !strings.Contains(err.Error(), "no such timer") {
		t.Errorf("ran with %v", err)
	}
}
