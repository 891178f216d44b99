//go:build !linux

package host

import "os/exec"

// dieWithParent does nothing here: only Linux can tie a child's life to its parent's, so Stop or Drain must be called.
func dieWithParent(*exec.Cmd) {}
