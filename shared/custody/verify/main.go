// Command verify checks an export package: whether what is in it is what was recorded.
//
//	go run ./shared/custody/verify [-key FINGERPRINT] [-checkpoint FILE [-signature FILE]] PACKAGE
//
// It is written from FORMAT.md and shares no code with what makes packages, so that a mistake
// of one is not a mistake of both. It trusts nothing in a package. The fingerprint of the
// signing key and, if there is one, an older checkpoint must come from somewhere else.
//
// PACKAGE is a ZIP file, or a directory that holds the same files. FILE is a checkpoint that
// somebody kept: its three lines, or four with the signature in base64.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// Exit codes, section 5 of FORMAT.md.
const (
	exitVerified   = 0
	exitFailed     = 1
	exitUsage      = 2
	exitUnverified = 3
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program: it prints what it did and returns the exit code.
func run(args []string, out, usage io.Writer) int {
	flags := flag.NewFlagSet("verify", flag.ContinueOnError)
	flags.SetOutput(usage)
	key := flags.String("key", "", "fingerprint of the signing key: 64 hex digits, from somewhere other than the package")
	checkpoint := flags.String("checkpoint", "", "file of an older checkpoint of the same log, from somewhere other than the package")
	signature := flags.String("signature", "", "file of that checkpoint's signature in DER")
	flags.Usage = func() {
		fmt.Fprintln(usage, "usage: verify [-key FINGERPRINT] [-checkpoint FILE [-signature FILE]] PACKAGE")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	trust, err := trustFrom(*key, *checkpoint, *signature)
	if err != nil || flags.NArg() != 1 {
		if err == nil {
			err = errors.New("name one package")
		}
		fmt.Fprintf(usage, "verify: %v\n", err)
		flags.Usage()
		return exitUsage
	}
	name := flags.Arg(0)
	if _, err := os.Stat(name); err != nil {
		fmt.Fprintf(usage, "verify: the package cannot be read: %v\n", err)
		return exitUsage
	}
	r := verifyPath(name, trust)
	r.print(out)
	return r.exitCode()
}

// verifyPath verifies the package at a path.
func verifyPath(name string, trust trust) *report {
	r := &report{}
	p, err := openPackage(name)
	if err != nil {
		r.fail("container", err)
		return r
	}
	r = verify(p, trust)
	if err := p.close(); err != nil && r.failure == nil {
		r.fail("container", err)
	}
	return r
}
