//go:build !windows

package main

import (
	"strings"
	"testing"
)

func TestServiceCommandsAreRefusedElsewhere(t *testing.T) {
	for _, command := range []string{"install", "start", "stop", "remove"} {
		var out strings.Builder
		if code := start([]string{command}, nil, &out); code != exitFault || !strings.Contains(out.String(), "on Windows only") {
			t.Errorf("%s: %d, says %q", command, code, out.String())
		}
	}
}
