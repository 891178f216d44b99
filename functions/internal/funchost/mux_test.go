package funchost_test

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/functions/internal/funchost"
)

func TestAllFaultsOfAConfigurationAreNamedAtOnce(t *testing.T) {
	_, err := funchost.New(funchost.Config{FunctionTimeout: time.Second, Margin: time.Minute, MaxConcurrent: -1})
	for _, want := range []string{"route prefix is empty", "leaves nothing", "negative"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
	for _, prefix := range []string{"/steno", "Steno", "a/b", "admin", "runtime", "steno/"} {
		if _, err := funchost.New(funchost.Config{RoutePrefix: prefix}); err == nil {
			t.Errorf("route prefix %q accepted", prefix)
		}
	}
}

func TestAllFaultsOfRegistrationsAreNamedAtOnce(t *testing.T) {
	a := newApp(t, func(c *funchost.Config) { c.Park = nil })
	timer := func(context.Context, funchost.TimerInfo) error { return nil }
	queue := func(context.Context, funchost.Message) error { return nil }
	web := http.NotFoundHandler()
	a.Timer("steno", timer)
	a.Timer("Groupsync", timer)
	a.Timer("host", timer)
	a.Timer("twice", timer)
	a.Timer("twice", timer)
	a.Timer("empty", nil)
	a.Queue("unbound", "", queue)
	a.HTTP("portal", funchost.Route{Pattern: "{*path}"}, web)
	a.HTTP("other", funchost.Route{Pattern: "{*rest}"}, web)
	a.HTTP("param", funchost.Route{Pattern: "items/{id}"}, web)
	a.HTTP("rootless", funchost.Route{}, web)
	a.HTTP("greedy", funchost.Route{Pattern: "greedy", MaxBody: funchost.MaxWebBody + 1}, web)
	a.HTTP("lasting", funchost.Route{Pattern: "lasting", Timeout: time.Hour}, web)
	err := a.Check()
	if err == nil {
		t.Fatal("no fault found")
	}
	for _, want := range []string{
		`"steno" equals the route prefix`, `"Groupsync" does not match`, `"host" is reserved`, `"twice" is registered twice`, `"empty" has no code`,
		`"unbound" names no binding`, `"unbound" has nowhere to park`, `"portal" and "other" share`, `"items/{id}"`, `route "" of function "rootless"`,
		`of function "greedy"`, `of function "lasting"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error does not say %s:\n%v", want, err)
		}
	}
	if _, err := a.Handler(); err == nil {
		t.Error("a faulty mux has a handler")
	}
}

func TestAnAppWithoutFunctionsDoesNotServe(t *testing.T) {
	if err := newApp(t, nil).Check(); err == nil {
		t.Error("no fault found")
	}
}

func TestRegisteredFunctionsAreListed(t *testing.T) {
	a := newApp(t, nil)
	a.Timer("retention", func(context.Context, funchost.TimerInfo) error { return nil })
	a.Queue("finalize", "leg", func(context.Context, funchost.Message) error { return nil })
	a.HTTP("portal", funchost.Route{Pattern: "{*path}"}, http.NotFoundHandler())
	if got := a.Names(); !slices.Equal(got, []string{"finalize", "portal", "retention"}) {
		t.Errorf("names %v", got)
	}
	want := []funchost.Function{
		{Name: "finalize", Trigger: funchost.Queue, Binding: "leg"},
		{Name: "portal", Trigger: funchost.HTTP, Route: "{*path}"},
		{Name: "retention", Trigger: funchost.Timer},
	}
	if got := a.Functions(); !slices.Equal(got, want) {
		t.Errorf("functions %v", got)
	}
}
