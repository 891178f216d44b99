package azurite_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"steno/tests/local/azurite"
)

// parentVariable turns the test binary into a program that starts an account,
// prints the address of its queues, and waits to be killed.
const parentVariable = "AZURITE_TEST_PARENT"

func TestMain(m *testing.M) {
	if os.Getenv(parentVariable) == "" {
		os.Exit(m.Run())
	}
	a, err := azurite.Start(context.Background(), azurite.Config{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(a.QueueURL)
	select {}
}

func TestAzuriteDiesWithItsParent(t *testing.T) {
	parent := exec.CommandContext(ctx(t), os.Args[0])
	parent.Env = append(os.Environ(), parentVariable+"=1")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(strings.TrimSpace(line))
	if err != nil || u.Host == "" {
		t.Fatalf("parent says %q", line)
	}
	alive := func() error {
		nc, err := net.Dial("tcp", u.Host)
		if err != nil {
			return err
		}
		return nc.Close()
	}
	if err := alive(); err != nil {
		t.Fatal(err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	parent.Wait()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.Now().Add(10 * time.Second); ; <-tick.C {
		if err := alive(); errors.Is(err, syscall.ECONNREFUSED) {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("azurite outlived its parent")
		}
	}
}
