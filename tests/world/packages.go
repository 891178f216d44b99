package world

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"steno/shared/conversation"
	"steno/tests/local/entra"
	"steno/tests/sim"
)

// Person is a token of a person for the portal's API, as the pages have it.
func (w *World) Person(id sim.PersonID) string {
	return w.Entra.Mint(w.Entra.PersonClaims(entra.Person{ID: string(id)}, Audience, Client, "Archive.Read"))
}

// API asks the portal in the name of a person: a GET if body is nil, else a POST of it as
// JSON. An answer that is no success is an error.
func (w *World) API(ctx context.Context, token, path string, body, into any) error {
	method, in := http.MethodGet, io.Reader(nil)
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return err
		}
		method, in = http.MethodPost, bytes.NewReader(b)
	}
	b, err := w.ask(ctx, method, token, path, in, "")
	if err != nil {
		return err
	}
	return json.Unmarshal(b, into)
}

func (w *World) ask(ctx context.Context, method, token, path string, in io.Reader, span string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, w.Origin+"/steno/v1/"+path, in)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if in != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if span != "" {
		r.Header.Set("Range", span)
	}
	resp, err := w.CA.Client().Do(r)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		return nil, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, b)
	}
	return b, nil
}

// order is what the API says of an export.
type order struct {
	ID, State, Failure string
	Size               int64
}

// Package orders an export of conversations as a compliance officer, waits until it is
// built, and fetches it.
func (w *World) Package(ctx context.Context, token string, ids ...conversation.ID) ([]byte, error) {
	var o order
	err := w.API(ctx, token, "exports", map[string]any{"case": "Case 7", "reason": "asked for by the regulator", "conversations": ids}, &o)
	if err != nil {
		return nil, err
	}
	for o.State != "ready" {
		if o.State == "failed" {
			return nil, fmt.Errorf("export %s: %s", o.ID, o.Failure)
		}
		// What an export waits for is that the log holds the records of what it exports.
		if err := w.Host.RunTimer(ctx, "sequencer"); err != nil {
			return nil, err
		}
		if err := Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
		var list struct{ Exports []order }
		if err := w.API(ctx, token, "exports", nil, &list); err != nil {
			return nil, err
		}
		for _, x := range list.Exports {
			if x.ID == o.ID {
				o = x
			}
		}
	}
	const piece = 4 << 20
	out := make([]byte, 0, o.Size)
	for off := int64(0); off < o.Size; off += piece {
		b, err := w.ask(ctx, http.MethodGet, token, "exports/"+o.ID+"/package", nil, fmt.Sprintf("bytes=%d-%d", off, min(off+piece, o.Size)-1))
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// Officers are the compliance officers of the tenant.
func (w *World) Officers() []sim.PersonID {
	g, ok := w.Tenant.Group(sim.Compliance)
	if !ok {
		return nil
	}
	return w.Tenant.UsersIn(g.ID)
}
