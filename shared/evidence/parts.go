package evidence

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"

	"steno/shared/custody"
	"steno/shared/teams"
)

// PartSize is how many plain bytes one part of a long object holds; the last one holds
// less, or as many.
const PartSize = 8 << 20

// PartObject is the object id of a part of a unit that is one long object.
func PartObject(unit string, n int) string {
	h := sha256.Sum256([]byte("steno-part-v1\x00" + unit + "\x00" + strconv.Itoa(n)))
	return hex.EncodeToString(h[:16])
}

// PartsWriter stores what is written to it as the parts of one long object, so that no
// more than a part is ever in memory. It is for objects that are made, such as export
// packages, not for evidence that was captured.
type PartsWriter struct {
	// ctx bounds every part that is stored: a writer has no other way to take one.
	ctx    context.Context
	store  *Store
	tenant teams.TenantID
	unit   string
	buf    []byte
	parts  int
	size   int64
	err    error
}

// NewParts begins a long object, which is a unit of its own. A unit is written once: who
// begins anew takes another.
func (s *Store) NewParts(ctx context.Context, tenant teams.TenantID, unit string) *PartsWriter {
	return &PartsWriter{ctx: ctx, store: s, tenant: tenant, unit: unit, buf: make([]byte, 0, PartSize)}
}

// Write stores each part as it fills up. After an error nothing more is stored.
func (w *PartsWriter) Write(p []byte) (n int, err error) {
	for n < len(p) && w.err == nil {
		take := min(PartSize-len(w.buf), len(p)-n)
		w.buf = append(w.buf, p[n:n+take]...)
		n += take
		if len(w.buf) == PartSize {
			w.err = w.put()
		}
	}
	return n, w.err
}

// Close stores what is left. When it returns nil all parts are durable.
func (w *PartsWriter) Close() error {
	if w.err == nil && (len(w.buf) > 0 || w.parts == 0) {
		w.err = w.put()
	}
	if w.err != nil {
		return w.err
	}
	w.err = errors.New("parts: the object is finished")
	return nil
}

// Size is how many bytes were written, and Parts how many parts they take.
func (w *PartsWriter) Size() int64 { return w.size }

// Parts is the number of parts stored so far.
func (w *PartsWriter) Parts() int { return w.parts }

func (w *PartsWriter) put() error {
	o, err := w.store.Seal(w.ctx, Ref{Tenant: w.tenant, Unit: w.unit, Object: PartObject(w.unit, w.parts)}, w.buf)
	if err == nil {
		err = w.store.Put(w.ctx, o)
	}
	if err != nil {
		return fmt.Errorf("part %d of %s: %w", w.parts, w.unit, err)
	}
	w.size += int64(len(w.buf))
	w.parts++
	w.buf = w.buf[:0]
	return nil
}

// Parts reads a long object of size bytes that PartsWriter stored, under the rules of Open.
// It is used by one goroutine.
type Parts struct {
	ctx     context.Context
	store   *Store
	tenant  teams.TenantID
	unit    string
	size    int64
	receipt custody.Receipt
	open    *Object
	at      int64 // which part is open
}

// OpenParts returns a reader of a long object. Nothing is read yet.
func (s *Store) OpenParts(ctx context.Context, tenant teams.TenantID, unit string, size int64, receipt custody.Receipt) (*Parts, error) {
	if err := receipt.Covers(unit, s.c.Now()); err != nil {
		return nil, fmt.Errorf("open %s: %w", unit, err)
	}
	return &Parts{ctx: ctx, store: s, tenant: tenant, unit: unit, size: size, receipt: receipt, at: -1}, nil
}

// Size is the number of plain bytes.
func (p *Parts) Size() int64 { return p.size }

// ReadAt implements io.ReaderAt. A part that does not verify yields ErrCorrupt.
func (p *Parts) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, errors.New("read parts: negative offset")
	}
	for n < len(b) && off < p.size {
		if err := p.turn(off / PartSize); err != nil {
			return n, err
		}
		from := off % PartSize
		take := min(int64(len(b)-n), p.open.Size()-from)
		if take <= 0 {
			return n, fmt.Errorf("read parts of %s: %w: part %d ends early", p.unit, ErrCorrupt, p.at)
		}
		if _, err := p.open.ReadAt(b[n:n+int(take)], from); err != nil {
			return n, fmt.Errorf("read part %d of %s: %w", p.at, p.unit, err)
		}
		n += int(take)
		off += take
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// turn opens a part, and checks that it is as long as it must be.
func (p *Parts) turn(n int64) error {
	if p.at == n {
		return nil
	}
	o, err := p.store.Open(p.ctx, Ref{Tenant: p.tenant, Unit: p.unit, Object: PartObject(p.unit, int(n))}, p.receipt)
	if err != nil {
		return err
	}
	if want := min(PartSize, p.size-n*PartSize); o.Size() != want {
		return fmt.Errorf("part %d of %s: %w: %d bytes, want %d", n, p.unit, ErrCorrupt, o.Size(), want)
	}
	p.open, p.at = o, n
	return nil
}
