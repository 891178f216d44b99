package main

import (
	"bytes"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"steno/tests/sim/gateway"
)

// full is a matter of many minutes: a million ticks, ten thousand calls.
var full = flag.Bool("full", false, "run every check at its full length")

// against runs checks against a gateway of its own and returns the exit status and the table.
func against(t *testing.T, cfg gateway.Config, args ...string) (int, string) {
	t.Helper()
	cfg.TokenFile = filepath.Join(t.TempDir(), "token")
	g, err := gateway.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	}()
	var out, complaints bytes.Buffer
	args = append([]string{"-url", g.URL(), "-token-file", cfg.TokenFile, "-v", fmt.Sprintf("-short=%t", !*full)}, args...)
	code := run(t.Context(), args, &out, &complaints)
	t.Logf("%s\n%s", complaints.String(), out.String())
	return code, out.String()
}

var only = flag.String("only", "", "numbers of the checks of the whole contract to run, with commas")

func TestTheSimulatedGatewayKeepsTheWholeContract(t *testing.T) {
	code, table := against(t, gateway.Config{TestMode: true}, "-run", *only)
	if *only != "" && code == exitPassed {
		return
	}
	if code != exitPassed || !strings.Contains(table, "30 passed, 0 failed, 0 not checked") {
		t.Errorf("exit status %d", code)
	}
}

func TestEachDefectIsNoticedByItsCheck(t *testing.T) {
	for i, defect := range gateway.Defects() {
		t.Run(fmt.Sprintf("%d %s", i+1, defect), func(t *testing.T) {
			t.Parallel()
			code, table := against(t, gateway.Config{TestMode: true, Defects: []gateway.Defect{defect}}, "-run", fmt.Sprint(i+1), "-patience", "2s")
			if code != exitFailed {
				t.Errorf("exit status %d: %s", code, table)
			}
		})
	}
}

func TestWithoutTestModeNothingIsSaidToHavePassedThatWasNotChecked(t *testing.T) {
	code, table := against(t, gateway.Config{}, "-run", "6,11,17")
	if code != exitNotChecked || !strings.Contains(table, "1 passed, 0 failed, 2 not checked") {
		t.Errorf("exit status %d", code)
	}
}

func TestAWrongTokenOrGatewayIsSaidAtOnce(t *testing.T) {
	var out, complaints bytes.Buffer
	if code := run(t.Context(), []string{"-token-file", filepath.Join(t.TempDir(), "none")}, &out, &complaints); code != exitUnable {
		t.Errorf("exit status %d without a token file", code)
	}
	if code := run(t.Context(), []string{"-run", "31"}, &out, &complaints); code != exitUnable || !strings.Contains(complaints.String(), `no check "31"`) {
		t.Errorf("exit status %d for check 31: %s", code, complaints.String())
	}
}
