package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"steno/tests/local/entra"
	"steno/tests/sim"
	"steno/tests/sim/gateway"
)

// What the world's Entra and tenant know the recorder by.
const (
	BotApp      = "a0000000-0000-4000-8000-000000000004" // application
	BotInstance = "a0000000-0000-4000-8000-000000000005" // resource account in the recording policy
	BotControl  = "a0000000-0000-4000-8000-000000000006" // audience of the control API
)

// Bot is the built recording bot, running, and its media gateway.
type Bot struct {
	Gateway *gateway.Gateway
	Origin  string // where its webhook and control API are
	Health  string // where its probes are
	Dir     string // its spool and outbox

	w    *World
	exe  string
	env  []string
	cmd  *exec.Cmd
	done chan error
}

// Calls is the address of the webhook for invites.
func (b *Bot) Calls() string { return b.Origin + "/steno/incoming" }

// startBot starts the gateway and the recorder, and has the tenant invite it.
func (w *World) startBot(ctx context.Context, c Config) (err error) {
	dir := filepath.Join(c.Dir, "bot")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b := &Bot{w: w, exe: c.BotExe, Dir: dir}
	w.Bot = b
	token := filepath.Join(dir, "gateway.token")
	if b.Gateway, err = gateway.Start(gateway.Config{TokenFile: token, MaxCalls: 300}); err != nil {
		return err
	}
	listen, err := freeAddress()
	if err != nil {
		return err
	}
	health, err := freeAddress()
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return err
	}
	b.Origin, b.Health = "https://localhost:"+port, "http://"+health
	settings := map[string]string{
		"PATH": os.Getenv("PATH"), "HOME": c.Dir, "SSL_CERT_FILE": filepath.Join(c.Dir, "ca.pem"),
		"AZURE_TENANT_ID": w.Tenant.ID(), "AZURE_CLIENT_ID": BotApp, "AZURE_CLIENT_SECRET": appSecret, "AZURE_AUTHORITY_HOST": w.Origin,
		"ServiceBusConnection":      w.Bus.ConnectionString(),
		"STENO_PRIVATE_AUTHORITY":   "true",
		"STENO_TENANT_ID":           w.Tenant.ID(),
		"STENO_ROLE_GROUPS":         w.Settings["STENO_ROLE_GROUPS"],
		"STENO_GRAPH_URL":           w.GraphURL,
		"STENO_GRAPH_PRIVATE":       "true",
		"STENO_BLOB_URL":            w.Storage.BlobURL,
		"STENO_TABLE_URL":           w.Storage.TableURL,
		"STENO_VAULT_URL":           w.VaultURL,
		"STENO_VAULT_KEY":           VaultKey,
		"STENO_RECOVERY_KEY":        w.Settings["STENO_RECOVERY_KEY"],
		"STENO_BOT_APP":             BotApp,
		"STENO_BOT_NAME":            "bot-1",
		"STENO_BOT_PUBLIC_URL":      b.Origin,
		"STENO_BOT_LISTEN":          listen,
		"STENO_BOT_HEALTH_LISTEN":   health,
		"STENO_BOT_CERTIFICATE":     filepath.Join(c.Dir, "cert.pem"),
		"STENO_BOT_CERTIFICATE_KEY": filepath.Join(c.Dir, "key.pem"),
		"STENO_BOT_DATA":            dir,
		"STENO_CALLING_ISSUER":      w.GraphURL[:len(w.GraphURL)-len("/v1.0")] + sim.OpenIDConfigurationPath,
		"STENO_GATEWAY_URL":         b.Gateway.URL(),
		"STENO_GATEWAY_TOKEN_FILE":  token,
		"STENO_VIDEO_SOCKETS":       "2",
		"STENO_SCREEN":              "true",
		"STENO_METADATA_URL":        "none",
		"STENO_LOGIN_ISSUER":        w.Entra.Issuer(),
		"STENO_LOGIN_KEYS":          w.Entra.Authority() + "/discovery/v2.0/keys",
		"STENO_CONTROL_AUDIENCE":    BotControl,
		"STENO_CONTROL_CLIENTS":     App,
		"STENO_HAND_OVER_LIMIT":     "20s",
	}
	for k, v := range c.BotSettings {
		settings[k] = v
	}
	for k, v := range settings {
		b.env = append(b.env, k+"="+v)
	}
	if err := b.Start(ctx, c.Log); err != nil {
		return err
	}
	return b.register()
}

// ReplaceGateway ends the gateway, however it is, and starts another one where it was.
func (b *Bot) ReplaceGateway(c gateway.Config) error {
	c.Addr, c.TokenFile = strings.TrimPrefix(b.Gateway.URL(), "http://"), filepath.Join(b.Dir, "gateway.token")
	if err := b.Gateway.Close(); err != nil {
		return err
	}
	var err error
	if b.Gateway, err = gateway.Start(c); err != nil {
		return err
	}
	return b.register()
}

// register makes the tenant invite the recorder, and follow its answers to its gateway.
func (b *Bot) register() error {
	return b.w.Tenant.Calls().Register(sim.Recorder{
		App: BotApp, Instance: BotInstance, Webhook: b.Calls(), Client: b.w.CA.Client(), Gateways: b.Gateways(),
	})
}

// Gateways is where the blobs of the recorder's answers lead.
func (b *Bot) Gateways() []*gateway.Gateway { return []*gateway.Gateway{b.Gateway} }

// Ready asks the recorder's probe whether it takes calls.
func (b *Bot) Ready(ctx context.Context) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.Health+"/readyz", nil)
	if err != nil {
		return false, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false, err
	}
	return resp.StatusCode == http.StatusOK, resp.Body.Close()
}

// freeAddress returns an address of loopback on which nobody listened a moment ago.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// Start starts the recorder, again if it has ended, and returns when it takes calls.
func (b *Bot) Start(ctx context.Context, log interface{ Write([]byte) (int, error) }) error {
	b.cmd = exec.Command(b.exe)
	b.cmd.Env = b.env
	if log != nil {
		b.cmd.Stdout, b.cmd.Stderr = log, log
	}
	if err := b.cmd.Start(); err != nil {
		return fmt.Errorf("start the recorder: %w", err)
	}
	b.done = make(chan error, 1)
	go func(cmd *exec.Cmd, done chan error) { done <- cmd.Wait() }(b.cmd, b.done)
	for {
		if ready, err := b.Ready(ctx); ready && err == nil {
			return nil // an error is that of a door that is not open yet
		}
		select {
		case err := <-b.done:
			b.done <- err
			return fmt.Errorf("the recorder ended before it took calls: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// Pid is the process id of the recorder.
func (b *Bot) Pid() int { return b.cmd.Process.Pid }

// Kill ends the recorder with SIGKILL and waits for it.
func (b *Bot) Kill() error {
	if err := b.cmd.Process.Kill(); err != nil {
		return err
	}
	<-b.done
	b.done = nil
	return nil
}

// Drain asks the recorder to end when its calls are over, and waits for it.
func (b *Bot) Drain() error {
	if err := b.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := <-b.done
	b.done = nil
	return err
}

// stop ends recorder and gateway, running calls included.
func (b *Bot) stop() error {
	if b == nil {
		return nil
	}
	var errs []error
	b.w.Tenant.Calls().Close()
	if b.done != nil {
		_ = b.cmd.Process.Signal(syscall.SIGTERM) // gone already if this fails
		select {
		case err := <-b.done:
			errs = append(errs, err)
		case <-time.After(15 * time.Second):
			_ = b.cmd.Process.Kill() // gone already if this fails
			<-b.done
			errs = append(errs, errors.New("the recorder did not end"))
		}
		b.done = nil
	}
	if b.Gateway != nil {
		errs = append(errs, b.Gateway.Close())
	}
	return errors.Join(errs...)
}

// ControlToken is an access token of a person for the recorder's control API.
func (w *World) ControlToken(person sim.PersonID) string {
	return w.Entra.Mint(w.Entra.PersonClaims(entra.Person{ID: string(person)}, BotControl, App, "Recording.Control"))
}
