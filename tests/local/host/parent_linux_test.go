package host_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"steno/tests/local/host"
)

// orphanRoot names the app that this binary runs, and nothing else, when it plays a host that is killed.
const orphanRoot = "HOST_TEST_ORPHAN_ROOT"

func TestHandlerDiesWithItsHost(t *testing.T) {
	if root := os.Getenv(orphanRoot); root != "" {
		h, err := host.Start(t.Context(), host.Config{ScriptRoot: root})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("handler", h.HandlerPID())
		<-t.Context().Done()
		return
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHandlerDiesWithItsHost$")
	cmd.Env = append(os.Environ(), orphanRoot+"="+stage(t, timers("ok")))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := ""
	for lines := bufio.NewScanner(out); pid == "" && lines.Scan(); {
		pid, _ = strings.CutPrefix(lines.Text(), "handler ")
		if _, err := strconv.Atoi(pid); err != nil {
			pid = ""
		}
	}
	if pid == "" {
		t.Fatal("no handler started")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the host was not killed")
	}
	eventually(t, "handler gone", func() bool {
		b, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(b), ") Z ") // a zombie waits for whoever inherits it
	})
}

func TestStoppedHostLeavesNoGoroutine(t *testing.T) {
	before := runtime.NumGoroutine()
	h, err := host.Start(t.Context(), host.Config{ScriptRoot: stage(t, webApp()), MasterKey: "master"})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.RunTimer(t.Context(), "ok"); err != nil {
		t.Error(err)
	}
	get(t, h, "GET", "/api/x", "", nil)
	h.Stop()
	h.Stop()
	eventually(t, "goroutines back to what they were", func() bool { return runtime.NumGoroutine() <= before })
}
