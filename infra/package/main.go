// Package stages the Functions app: the folder that the host runs and the zip that is deployed.
//
//	go run ./infra/package -out dist/app [-zip dist/app.zip] [-apps edge,capture,keeper] [-os linux -arch amd64] [-bot dist/bot/mediabot.exe]
//
// With -bot it builds the recording bot too, for Windows: the media library that its gateway hosts runs nowhere else.
//
// The host finds a function only in a direct child of the folder of host.json, and takes a lone other file in there for the function's
// script (azure-functions-host, HostFunctionMetadataProvider and DeterminePrimaryScriptFile). So the staged folder holds host.json, the
// handler, and for each function a folder with its function.json and nothing else, whatever lies beside it in the source tree.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "package:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var p plan
	var apps, bot string
	fs := flag.NewFlagSet("package", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&p.root, "root", ".", "source tree")
	fs.StringVar(&p.out, "out", "dist/app", "folder to stage into; replaced if it is a staged app")
	fs.StringVar(&p.zip, "zip", "", "zip file to write as well")
	fs.StringVar(&apps, "apps", "", "stage only the functions of these apps ("+strings.Join(appNames(), ",")+"); all by default")
	fs.StringVar(&bot, "bot", "", "executable of the recording bot to build as well, for Windows")
	fs.StringVar(&p.goos, "os", "linux", "operating system of the handler")
	fs.StringVar(&p.goarch, "arch", "amd64", "architecture of the handler; Azure's is amd64")
	fs.BoolVar(&p.skipBuild, "skip-build", false, "take the handler from -handler instead of building it")
	fs.StringVar(&p.handler, "handler", "", "handler to take, with -skip-build")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", fs.Arg(0))
	}
	if p.skipBuild != (p.handler != "") {
		return errors.New("-skip-build and -handler go together")
	}
	if apps != "" {
		p.apps = strings.Split(apps, ",")
	}
	if bot != "" {
		if err := build(ctx, stderr, p.root, bot, "./mediabot", "windows", "amd64"); err != nil {
			return fmt.Errorf("bot: %w", err)
		}
		if _, err := fmt.Fprintf(stdout, "built %s\n", bot); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	names, err := p.stage(ctx, stderr)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "staged %s: %s\n", p.out, strings.Join(names, " ")); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	if p.zip == "" {
		return nil
	}
	sum, err := writeZip(p.zip, p.out, p.executable())
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(stdout, "zipped %s: sha256 %x\n", p.zip, sum); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
