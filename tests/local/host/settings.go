package host

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// timespan is a .NET TimeSpan as host.json has it: [d.]hh:mm:ss[.fraction].
type timespan time.Duration

var timespanForm = regexp.MustCompile(`^(?:(\d+)\.)?(\d{1,2}):(\d{2}):(\d{2})(\.\d{1,7})?$`)

// UnmarshalJSON implements json.Unmarshaler.
func (t *timespan) UnmarshalJSON(b []byte) error {
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return fmt.Errorf("time span %s is not a string", b)
	}
	m := timespanForm.FindStringSubmatch(s)
	if m == nil {
		return fmt.Errorf("time span %q is not [d.]hh:mm:ss", s)
	}
	var d time.Duration
	for i, unit := range []time.Duration{24 * time.Hour, time.Hour, time.Minute, time.Second} {
		if m[i+1] == "" {
			continue
		}
		n, err := strconv.Atoi(m[i+1])
		if err != nil {
			return fmt.Errorf("time span %q: %w", s, err)
		}
		d += time.Duration(n) * unit
	}
	if m[5] != "" {
		f, err := strconv.ParseFloat(m[5], 64)
		if err != nil {
			return fmt.Errorf("time span %q: %w", s, err)
		}
		d += time.Duration(f * float64(time.Second))
	}
	*t = timespan(d)
	return nil
}

// hostFile is the part of host.json that the stand-in obeys, with the real host's defaults.
type hostFile struct {
	Version         string   `json:"version"`
	FunctionTimeout timespan `json:"functionTimeout"`
	CustomHandler   struct {
		Description struct {
			DefaultExecutablePath string   `json:"defaultExecutablePath"`
			WorkingDirectory      string   `json:"workingDirectory"`
			Arguments             []string `json:"arguments"`
		} `json:"description"`
		EnableForwardingHTTPRequest bool            `json:"enableForwardingHttpRequest"`
		EnableProxyingHTTPRequest   bool            `json:"enableProxyingHttpRequest"`
		InitializationTimeout       timespan        `json:"initializationTimeout"`
		HTTP                        json.RawMessage `json:"http"`
	} `json:"customHandler"`
	Extensions struct {
		HTTP struct {
			RoutePrefix           string `json:"routePrefix"`
			MaxConcurrentRequests int    `json:"maxConcurrentRequests"`
		} `json:"http"`
		Queues struct {
			BatchSize          int      `json:"batchSize"`
			NewBatchThreshold  int      `json:"newBatchThreshold"`
			MaxDequeueCount    int      `json:"maxDequeueCount"`
			VisibilityTimeout  timespan `json:"visibilityTimeout"`
			MaxPollingInterval timespan `json:"maxPollingInterval"`
			MessageEncoding    string   `json:"messageEncoding"`
		} `json:"queues"`
		ServiceBus struct {
			PrefetchCount              int      `json:"prefetchCount"`
			AutoCompleteMessages       bool     `json:"autoCompleteMessages"`
			MaxConcurrentCalls         int      `json:"maxConcurrentCalls"`
			MaxAutoLockRenewalDuration timespan `json:"maxAutoLockRenewalDuration"`
		} `json:"serviceBus"`
	} `json:"extensions"`
}

func readHostFile(path string, settings map[string]string) (*hostFile, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read host.json: %w", err)
	}
	if b, err = override(b, settings); err != nil {
		return nil, fmt.Errorf("read host.json: %w", err)
	}
	f := &hostFile{FunctionTimeout: timespan(30 * time.Minute)}
	f.CustomHandler.InitializationTimeout = timespan(30 * time.Second)
	f.Extensions.HTTP.RoutePrefix = "api"
	f.Extensions.HTTP.MaxConcurrentRequests = 100
	q := &f.Extensions.Queues
	q.BatchSize, q.NewBatchThreshold, q.MaxDequeueCount = 16, 8, 5
	q.MaxPollingInterval, q.MessageEncoding = timespan(time.Minute), "base64"
	s := &f.Extensions.ServiceBus
	s.AutoCompleteMessages, s.MaxConcurrentCalls, s.MaxAutoLockRenewalDuration = true, 16, timespan(5*time.Minute)
	if err := json.Unmarshal(b, f); err != nil {
		return nil, fmt.Errorf("read host.json: %w", err)
	}
	return f, f.check()
}

func (f *hostFile) check() error {
	q, s := f.Extensions.Queues, f.Extensions.ServiceBus
	switch {
	case f.Version != "2.0":
		return fmt.Errorf("host.json: version is %q, must be 2.0", f.Version)
	case f.CustomHandler.Description.DefaultExecutablePath == "":
		return fmt.Errorf("host.json: customHandler.description.defaultExecutablePath is empty")
	case f.CustomHandler.HTTP != nil:
		return fmt.Errorf("host.json: customHandler.http excludes every function.json; the stand-in does not know it")
	case f.CustomHandler.EnableForwardingHTTPRequest && !f.CustomHandler.EnableProxyingHTTPRequest:
		return fmt.Errorf("host.json: enableForwardingHttpRequest buffers answers and hides their failures; the stand-in knows only proxying")
	case f.FunctionTimeout <= 0:
		return fmt.Errorf("host.json: functionTimeout is not positive")
	case !s.AutoCompleteMessages:
		return fmt.Errorf("host.json: autoCompleteMessages is false: no custom handler can complete a message, it would be delivered for ever")
	case s.MaxConcurrentCalls < 1:
		return fmt.Errorf("host.json: serviceBus.maxConcurrentCalls is %d", s.MaxConcurrentCalls)
	case q.BatchSize < 1 || q.BatchSize > 32:
		return fmt.Errorf("host.json: queues.batchSize is %d, not 1 to 32", q.BatchSize)
	case q.MaxDequeueCount < 1:
		return fmt.Errorf("host.json: queues.maxDequeueCount is %d", q.MaxDequeueCount)
	case q.MessageEncoding != "base64" && q.MessageEncoding != "none":
		return fmt.Errorf("host.json: queues.messageEncoding is %q", q.MessageEncoding)
	}
	return nil
}

// override applies settings such as AzureFunctionsJobHost__extensions__queues__batchSize to host.json.
func override(b []byte, settings map[string]string) ([]byte, error) {
	var tree map[string]any
	if err := json.Unmarshal(b, &tree); err != nil {
		return nil, err
	}
	for name, value := range settings {
		path, ok := strings.CutPrefix(name, "AzureFunctionsJobHost__")
		if !ok {
			continue
		}
		node, keys := tree, strings.Split(path, "__")
		for _, k := range keys[:len(keys)-1] {
			child, ok := node[k].(map[string]any)
			if !ok {
				child = map[string]any{}
				node[k] = child
			}
			node = child
		}
		node[keys[len(keys)-1]] = settingValue(value)
	}
	return json.Marshal(tree)
}

// settingValue reads a number or a boolean as such, and anything else as text.
func settingValue(s string) any {
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return s
	}
	switch v.(type) {
	case float64, bool:
		return v
	}
	return s
}
