package azurite

import (
	"os"
	"os/exec"
	"syscall"
)

// bind makes the kernel end the child when the thread that started it ends,
// and so with this process however that ends.
func bind(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

func terminate(p *os.Process) error { return p.Signal(syscall.SIGTERM) }
