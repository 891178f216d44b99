package host

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// binding is one entry of function.json's bindings.
type binding struct {
	Type      string `json:"type"`
	Direction string `json:"direction"`
	Name      string `json:"name"`
	DataType  string `json:"dataType"`

	Schedule     string `json:"schedule"`
	UseMonitor   *bool  `json:"useMonitor"`
	RunOnStartup bool   `json:"runOnStartup"`

	QueueName         string `json:"queueName"`
	TopicName         string `json:"topicName"`
	Connection        string `json:"connection"`
	Cardinality       string `json:"cardinality"`
	IsSessionsEnabled bool   `json:"isSessionsEnabled"`

	AuthLevel string   `json:"authLevel"`
	Methods   []string `json:"methods"`
	Route     *string  `json:"route"`
}

type retryPolicy struct {
	Strategy        string   `json:"strategy"`
	MaxRetryCount   int      `json:"maxRetryCount"`
	DelayInterval   timespan `json:"delayInterval"`
	MinimumInterval timespan `json:"minimumInterval"`
	MaximumInterval timespan `json:"maximumInterval"`
}

// delay returns the pause before the given retry, counted from 1.
func (p *retryPolicy) delay(retry int) time.Duration {
	if p.Strategy == "fixedDelay" {
		return time.Duration(p.DelayInterval)
	}
	d := time.Duration(p.MinimumInterval) << min(retry-1, 20)
	return min(d, time.Duration(p.MaximumInterval))
}

// function is a loaded function.json.
type function struct {
	name     string
	trigger  binding
	proxied  bool // one HTTP trigger, one HTTP output, and host.json wants proxying
	output   string
	retry    *retryPolicy
	schedule *Schedule
}

// app is a loaded script root.
type app struct {
	root      string
	host      *hostFile
	functions map[string]*function
}

var functionName = regexp.MustCompile(`(?i)^[a-z][a-z0-9_-]{0,127}$`)

// loadApp reads a staged app as the host does: function folders are direct children of the folder of host.json.
func loadApp(root string, settings map[string]string) (*app, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, fmt.Errorf("load app: %w", err)
	}
	hf, err := readHostFile(filepath.Join(root, "host.json"), settings)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("load app: %w", err)
	}
	a := &app{root: root, host: hf, functions: map[string]*function{}}
	var faults []error
	folded := map[string]string{}
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(root, e.Name(), "function.json"))
		if !e.IsDir() || errors.Is(err, os.ErrNotExist) {
			continue
		}
		var f *function
		if err == nil {
			f, err = loadFunction(e.Name(), b, hf, settings)
		}
		if other, twice := folded[strings.ToLower(e.Name())]; twice && err == nil {
			err = fmt.Errorf("differs from %q by case alone", other)
		}
		folded[strings.ToLower(e.Name())] = e.Name()
		if err != nil {
			faults = append(faults, fmt.Errorf("load function %s: %w", e.Name(), err))
			continue
		}
		if settings["AzureWebJobs."+f.name+".Disabled"] != "true" {
			a.functions[f.name] = f
		}
	}
	if len(a.functions) == 0 && len(faults) == 0 {
		faults = append(faults, fmt.Errorf("no function found: none of the folders beside %s has a function.json", filepath.Join(root, "host.json")))
	}
	return a, errors.Join(faults...)
}

func loadFunction(name string, b []byte, hf *hostFile, settings map[string]string) (*function, error) {
	var file struct {
		Bindings []binding    `json:"bindings"`
		Retry    *retryPolicy `json:"retry"`
	}
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, err
	}
	if !functionName.MatchString(name) || strings.EqualFold(name, "host") {
		return nil, errors.New("invalid name")
	}
	f := &function{name: name, retry: file.Retry}
	names := map[string]bool{}
	triggers, outputs := 0, 0
	for _, bd := range file.Bindings {
		if bd.Name == "" || names[bd.Name] {
			return nil, fmt.Errorf("binding name %q is empty or not unique", bd.Name)
		}
		names[bd.Name] = true
		switch {
		case strings.HasSuffix(bd.Type, "Trigger"):
			triggers++
			f.trigger = bd
		case bd.Type == "http" && bd.Direction == "out":
			outputs++
			f.output = bd.Name
		default:
			return nil, fmt.Errorf("binding %q has the type %q and direction %q, which are unknown", bd.Name, bd.Type, bd.Direction)
		}
	}
	if triggers != 1 {
		return nil, fmt.Errorf("%d triggers, must be one", triggers)
	}
	f.proxied = hf.CustomHandler.EnableProxyingHTTPRequest && f.trigger.Type == "httpTrigger" && outputs == 1 && len(file.Bindings) == 2
	return f, f.check(settings)
}

func (f *function) check(settings map[string]string) error {
	if f.retry != nil && f.trigger.Type != "timerTrigger" {
		return fmt.Errorf("a retry policy has no effect on %s", f.trigger.Type)
	}
	for _, s := range []*string{&f.trigger.QueueName, &f.trigger.Schedule} {
		v, err := expand(*s, settings)
		if err != nil {
			return err
		}
		*s = v
	}
	switch t := f.trigger; t.Type {
	case "timerTrigger":
		s, err := ParseSchedule(t.Schedule)
		f.schedule = s
		return err
	case "queueTrigger", "serviceBusTrigger":
		if t.QueueName == "" || t.TopicName != "" {
			return errors.New("no queueName")
		}
		if t.Cardinality == "many" || t.IsSessionsEnabled {
			return errors.New("batches and sessions are unknown")
		}
	case "httpTrigger":
		if _, err := parseRoute(f.route()); err != nil {
			return err
		}
	default:
		return fmt.Errorf("trigger type %q is unknown", t.Type)
	}
	return nil
}

// route is the function's route template below the prefix: its own name if function.json has none.
func (f *function) route() string {
	if f.trigger.Route == nil {
		return f.name
	}
	return *f.trigger.Route
}

// expand replaces %NAME% by a setting, which must exist.
func expand(s string, settings map[string]string) (string, error) {
	var missing error
	out := settingName.ReplaceAllStringFunc(s, func(m string) string {
		v, ok := settings[m[1:len(m)-1]]
		if !ok {
			missing = fmt.Errorf("%s does not resolve to a setting", m)
		}
		return v
	})
	return out, missing
}

var settingName = regexp.MustCompile(`%[^%\s]+%`)
