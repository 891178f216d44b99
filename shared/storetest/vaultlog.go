package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"steno/shared/evidence"
)

var _ evidence.VaultLog = (*VaultLog)(nil)

// VaultLog is a vault's log in memory. Its zero value is empty and ready.
type VaultLog struct {
	mu    sync.Mutex
	lines []loggedLine
}

type loggedLine struct {
	received time.Time
	line     string
}

// Write adds a line that reached the log at a time.
func (l *VaultLog) Write(received time.Time, line []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, loggedLine{received, string(line)})
}

// Uses implements evidence.VaultLog.
func (l *VaultLog) Uses(ctx context.Context, from, to time.Time, late time.Duration, f func(evidence.VaultUse) error) (evidence.VaultLogRead, error) {
	var read evidence.VaultLogRead
	if err := ctx.Err(); err != nil {
		return read, err
	}
	l.mu.Lock()
	lines := slices.Clone(l.lines)
	l.mu.Unlock()
	seen := map[string]bool{}
	for _, x := range lines {
		// The log is kept by the hours of reception, and read by whole hours.
		if hour := x.received.Truncate(time.Hour); hour.Before(from.Truncate(time.Hour)) || hour.After(to.Add(late)) || seen[x.line] {
			continue
		}
		seen[x.line] = true
		u, err := evidence.ParseVaultUse([]byte(x.line))
		if err != nil {
			read.Unreadable++
			continue
		}
		if u.At.Before(from) || !u.At.Before(to) {
			continue
		}
		read.Records++
		if err := f(u); err != nil {
			return read, err
		}
	}
	return read, nil
}

// VaultRecord is a line as a vault logs an operation.
func VaultRecord(u evidence.VaultUse) []byte {
	status := 200
	if !u.Granted {
		status = 403
	}
	b, err := json.Marshal(map[string]any{
		"time": u.At.UTC().Format("2006-01-02T15:04:05.0000000Z"), "operationName": u.Operation, "category": "AuditEvent", "resultType": "Success",
		"callerIpAddress": u.Address, "correlationId": u.Request, "identity": map[string]any{"claim": map[string]any{"appid": u.Caller}},
		"properties": map[string]any{"id": fmt.Sprintf("https://%s/keys/%s/%s", u.Host, u.Key, u.Version), "httpStatusCode": status},
	})
	if err != nil {
		panic(err)
	}
	return b
}

// TestVaultLog checks the contract of evidence.VaultLog. open returns an empty log and what
// adds lines to it that were received at a time.
func TestVaultLog(t *testing.T, open func(t *testing.T) (evidence.VaultLog, func(received time.Time, lines ...[]byte))) {
	start := time.Date(2026, 3, 14, 9, 50, 0, 0, time.UTC)
	use := func(after time.Duration, request string) evidence.VaultUse {
		return evidence.VaultUse{
			At: start.Add(after), Operation: "KeyUnwrap", Host: "v.vault.azure.net", Key: "wrap", Version: "1", Caller: "app", Address: "10.0.0.1", Request: request, Granted: true,
		}
	}
	uses := func(t *testing.T, l evidence.VaultLog, from, to time.Duration) (out []string, read evidence.VaultLogRead) {
		t.Helper()
		read, err := l.Uses(t.Context(), start.Add(from), start.Add(to), 30*time.Minute, func(u evidence.VaultUse) error {
			out = append(out, u.Request)
			return nil
		})
		ok(t, err)
		slices.Sort(out)
		return out, read
	}
	t.Run("an empty log has no records", func(t *testing.T) {
		l, _ := open(t)
		if got, read := uses(t, l, 0, time.Hour); len(got) != 0 || read != (evidence.VaultLogRead{}) {
			t.Errorf("%v, %+v", got, read)
		}
	})
	t.Run("records of a time are read, across hours, late ones and each once", func(t *testing.T) {
		l, add := open(t)
		minute := time.Minute
		a, b, c, d := use(0, "a"), use(9*minute, "b"), use(11*minute, "c"), use(20*minute, "d")
		add(start, VaultRecord(use(-time.Second, "before")), VaultRecord(a), VaultRecord(a))
		add(start.Add(12*minute), VaultRecord(b), VaultRecord(c), []byte("{broken"), VaultRecord(a)) // b came late, a once more
		add(start.Add(25*minute), VaultRecord(d))
		got, read := uses(t, l, 0, 20*minute)
		if want := []string{"a", "b", "c"}; !slices.Equal(got, want) || read != (evidence.VaultLogRead{Records: 3, Unreadable: 1}) {
			t.Errorf("%v, %+v; want %v", got, read, want)
		}
		if got, _ := uses(t, l, 20*minute, 40*minute); !slices.Equal(got, []string{"d"}) {
			t.Errorf("the next stretch: %v", got)
		}
	})
	t.Run("an error of the caller's ends it", func(t *testing.T) {
		l, add := open(t)
		add(start, VaultRecord(use(0, "a")))
		stop := fmt.Errorf("stop")
		_, err := l.Uses(t.Context(), start, start.Add(time.Hour), time.Minute, func(evidence.VaultUse) error { return stop })
		wantErr(t, "its error", err, stop)
	})
}
