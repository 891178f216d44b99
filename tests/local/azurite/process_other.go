//go:build !linux

package azurite

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"
)

func bind(*exec.Cmd) {}

func terminate(p *os.Process) error {
	if runtime.GOOS == "windows" {
		return p.Kill() // there is no SIGTERM
	}
	return p.Signal(syscall.SIGTERM)
}
