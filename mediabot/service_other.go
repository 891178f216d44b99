//go:build !windows

package main

import (
	"errors"
	"slices"
)

// serviceCommand refuses: only Windows has services of this kind.
func serviceCommand(name string) error {
	if !slices.Contains([]string{"install", "start", "stop", "remove"}, name) {
		return errNoCommand
	}
	return errors.New("there are Windows services on Windows only; run mediabot without a command under the supervisor of this system")
}

// runService reports that the process does not run as a Windows service.
func runService([]string) (asService bool, code int) { return false, 0 }
