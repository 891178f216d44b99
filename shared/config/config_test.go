package config_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"steno/shared/config"
)

func TestUnknownSettingIsNamed(t *testing.T) {
	r := config.Read([]string{"STENO_TENNANT=canary", "STENO_TENANT=x", "PATH=/bin", "STENO_HOSTED=1", "odd"})
	r.Host("STENO_HOSTED")
	if v := r.String("STENO_TENANT"); v != "x" {
		t.Errorf("read %q", v)
	}
	err := r.Err()
	if err == nil || err.Error() != "STENO_TENNANT: unknown setting" {
		t.Errorf("error %v", err)
	}
	if want := []string{"STENO_HOSTED", "STENO_TENANT"}; !slices.Equal(r.Keys(), want) {
		t.Errorf("keys %v, want %v", r.Keys(), want)
	}
}

func TestAllFaultsAreReportedAtOnceAndNoValue(t *testing.T) {
	r := config.Read([]string{"D=canary", "D2=99h", "L=1h,canary", "N=NaN", "N2=7", "B=canary", "U=http://canary", "P=canary", "O=https://u:canary@h", "EMPTY="})
	r.String("MISSING")
	r.String("EMPTY")
	r.Duration("D", time.Hour, 0, 24*time.Hour)
	r.Duration("D2", time.Hour, 0, 24*time.Hour)
	r.Durations("L", nil)
	r.Number("N", 1, 0, 5)
	r.Number("N2", 1, 0, 5)
	r.Bool("B")
	r.URL("U")
	r.OptionalURL("O", "https://h")
	config.Parse(r, "P", func(string) (int, error) { return 0, errors.New("want a number") })
	config.Parse(r, "ABSENT", func(string) (int, error) { t.Error("parsed nothing"); return 0, nil })
	r.Fault("OWN", errors.New("is wrong"))
	err := r.Err()
	for _, key := range []string{"MISSING", "EMPTY", "D", "D2", "L", "N", "N2", "B", "U", "O", "P", "ABSENT", "OWN"} {
		if err == nil || !strings.Contains("\n"+err.Error(), "\n"+key+": ") {
			t.Errorf("faults\n%v\ndo not name %s", err, key)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("a value is shown: %v", err)
	}
}

func TestValuesAndDefaults(t *testing.T) {
	r := config.Read([]string{"D=90s", "L=0s, 24h", "N=2.5", "B=true", "U=https://h:8443/p/", "S=a=b"})
	got := fmt.Sprint(r.Duration("D", 0, 0, time.Hour), r.Durations("L", nil), r.Number("N", 0, 0, 5), r.Bool("B"), r.Bool("B2"), r.URL("U"), r.String("S"),
		r.Duration("D2", time.Minute, 0, time.Hour), r.Durations("L2", []time.Duration{1}), r.Number("N2", 3, 0, 5), r.OptionalURL("U2", "https://d/"), r.Optional("S2", "d"))
	want := fmt.Sprint(90*time.Second, []time.Duration{0, 24 * time.Hour}, 2.5, true, false, "https://h:8443/p", "a=b", time.Minute, []time.Duration{1}, 3.0, "https://d", "d")
	if got != want || r.Err() != nil {
		t.Errorf("read %s, %v; want %s", got, r.Err(), want)
	}
	for _, bad := range []string{"http://h", "https://", "https://:443", "https://h?", "https://h?q=1", "https://h#", "https://u@h", "h", "\x7f"} {
		r := config.Read([]string{"U=" + bad})
		if r.URL("U"); r.Err() == nil {
			t.Errorf("URL %q was taken", bad)
		}
	}
}

func TestSecretNeverPrints(t *testing.T) {
	type settings struct {
		S config.Secret
		M map[string]config.Secret
	}
	s := config.Secret("canary")
	for _, v := range []any{s, &s, []config.Secret{s}, settings{s, map[string]config.Secret{"k": s}}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t", "%08.3f"} {
			if text := fmt.Sprintf(verb, v); strings.Contains(text, "canary") || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", "canary")) {
				t.Errorf("%T with %s shows %s", v, verb, text)
			}
		}
		if b, err := json.Marshal(v); err == nil && bytes.Contains(b, []byte("canary")) {
			t.Errorf("%T as JSON shows %s", v, b)
		}
		var out bytes.Buffer
		for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
			slog.New(h).Info("m", slog.Any("v", v))
		}
		if strings.Contains(out.String(), "canary") {
			t.Errorf("%T in a log: %s", v, out.String())
		}
	}
	if string(s) != "canary" {
		t.Error("the value is lost")
	}
}
