package funchost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// okBody is the answer to every invocation that succeeded. It has no outputs on purpose; see the package comment.
const okBody = `{"Outputs":{},"Logs":[],"ReturnValue":null}`

const invocationHeader = "X-Azure-Functions-InvocationId"

var errPanic = errors.New("panic")

// invoke runs one invocation of a trigger function and answers the host.
func (h *handler) invoke(w http.ResponseWriter, r *http.Request, t *trigger) {
	id := invocationID(r)
	ctx, cancel := context.WithTimeout(withInvocation(r.Context(), t.name, id), h.cfg.FunctionTimeout-h.cfg.Margin)
	defer cancel()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		h.failed(ctx, ctx.Err(), time.Time{})
		refuse(w, http.StatusServiceUnavailable, "no free slot before the deadline")
		return
	}
	start := time.Now()
	status, err := h.attempt(ctx, w, r, t, id)
	if err != nil {
		h.failed(ctx, err, start)
		refuse(w, status, http.StatusText(status))
		return
	}
	answer(w, http.StatusOK, okBody)
}

func (h *handler) failed(ctx context.Context, err error, start time.Time) {
	attrs := []slog.Attr{slog.Any("error", err)}
	if !start.IsZero() {
		attrs = append(attrs, slog.Duration("duration", time.Since(start)))
	}
	h.cfg.Log.LogAttrs(ctx, slog.LevelError, "invocation failed", attrs...)
}

// attempt returns the status for an error; without one the invocation is done, by the function or by parking the message.
func (h *handler) attempt(ctx context.Context, w http.ResponseWriter, r *http.Request, t *trigger, id string) (int, error) {
	body, status, err := readBody(w, r, MaxEnvelopeBytes)
	if err != nil {
		return status, err
	}
	e, err := decodeEnvelope(body)
	if err != nil {
		return http.StatusBadRequest, err
	}
	msg, err := h.guard(ctx, t, e)
	switch {
	case err == nil:
		return 0, nil
	case errors.Is(err, errMalformed):
		return http.StatusBadRequest, err
	case msg != nil && errors.Is(err, ErrPoison):
		return http.StatusInternalServerError, h.park(ctx, t, id, *msg, err)
	}
	return http.StatusInternalServerError, err
}

// guard turns a panic of the function into an error. The value is not logged, for it may quote content; the stack tells the place.
func (h *handler) guard(ctx context.Context, t *trigger, e envelope) (msg *Message, err error) {
	defer func() {
		if v := recover(); v != nil {
			h.logPanic(ctx, v)
			msg, err = nil, errPanic
		}
	}()
	return t.run(ctx, e)
}

func (h *handler) logPanic(ctx context.Context, v any) {
	attrs := []slog.Attr{slog.String("type", fmt.Sprintf("%T", v)), slog.String("stack", string(debug.Stack()))}
	if e, ok := v.(runtime.Error); ok {
		attrs = append(attrs, slog.String("error", e.Error()))
	}
	h.cfg.Log.LogAttrs(ctx, slog.LevelError, "function panicked", attrs...)
}

// park keeps a poison message aside. It has time of its own, since a function may call a message poison just before its deadline.
func (h *handler) park(ctx context.Context, t *trigger, id string, msg Message, cause error) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), h.cfg.Margin/2)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			h.logPanic(ctx, v)
			err = fmt.Errorf("park message: %w", errPanic)
		}
	}()
	reason := cause.Error()
	reason = strings.ToValidUTF8(reason[:min(len(reason), maxReason)], "")
	p := Parked{Function: t.name, InvocationID: id, Reason: reason, Message: msg}
	if err := h.cfg.Park(ctx, p); err != nil {
		return fmt.Errorf("park message: %w; it was parked for: %w", err, cause)
	}
	h.cfg.Log.LogAttrs(ctx, slog.LevelError, "message parked",
		slog.String("alarm", "poison"), slog.Any("error", cause), slog.String("message_id", msg.ID))
	if h.cfg.Alarm != nil {
		h.cfg.Alarm(ctx, p)
	}
	return nil
}

// readBody reads a whole request body. Its error comes with the status that tells the client why: 415 for a compressed body, which
// could unpack to any size, 413 for one over the limit, 408 for one that came too slowly, 400 for one that broke off. The connection
// then ends with the answer, which would otherwise wait for the rest of the body.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, int, error) {
	body, status, err := readWhole(w, r, limit)
	if err != nil {
		w.Header().Set("Connection", "close")
		return nil, status, fmt.Errorf("read body: %w", err)
	}
	return body, 0, nil
}

func readWhole(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, int, error) {
	if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return nil, http.StatusUnsupportedMediaType, errors.New("it is compressed")
	}
	if r.ContentLength > limit {
		return nil, http.StatusRequestEntityTooLarge, fmt.Errorf("%d bytes are over the limit of %d", r.ContentLength, limit)
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		return body, 0, nil
	}
	var timeout interface{ Timeout() bool }
	switch _, tooLarge := errors.AsType[*http.MaxBytesError](err); {
	case tooLarge:
		return nil, http.StatusRequestEntityTooLarge, err
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, http.StatusRequestTimeout, err
	}
	return nil, http.StatusBadRequest, err
}
