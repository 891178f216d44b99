package funchost

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"time"
)

// serveWeb runs one web request, whose path below the prefix is rest.
func (h *handler) serveWeb(w http.ResponseWriter, r *http.Request, rest string) {
	if !canonical(rest) {
		refuse(w, http.StatusBadRequest, "path is not in canonical form")
		return
	}
	wr := h.match(rest)
	if wr == nil {
		refuse(w, http.StatusNotFound, "no such path")
		return
	}
	ctx := withInvocation(r.Context(), wr.name, invocationID(r))
	if !h.enter(ctx) {
		w.Header().Set("Retry-After", "1")
		refuse(w, http.StatusServiceUnavailable, "busy")
		return
	}
	defer func() { <-h.webSlots }()
	body, status, err := readBody(w, r, wr.maxBody)
	if err != nil {
		h.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "web request refused", slog.Int("status", status), slog.Any("error", err))
		refuse(w, status, http.StatusText(status))
		return
	}
	h.serveRoute(ctx, w, r, wr, body)
}

// enter waits a while for a slot.
func (h *handler) enter(ctx context.Context) bool {
	select {
	case h.webSlots <- struct{}{}:
		return true
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, WebQueueTimeout)
	defer cancel()
	select {
	case h.webSlots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (h *handler) serveRoute(ctx context.Context, w http.ResponseWriter, r *http.Request, wr *webRoute, body []byte) {
	timeout := min(wr.timeout, h.cfg.FunctionTimeout-h.cfg.Margin)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	// A client that does not read would hold the handler in a write, which no context ends.
	err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		h.cfg.Log.LogAttrs(ctx, slog.LevelWarn, "write deadline not set", slog.Any("error", err))
	}
	tw := &trackedWriter{ResponseWriter: w}
	defer func() {
		v := recover()
		switch {
		case v == nil:
		case v == http.ErrAbortHandler:
			panic(v)
		default:
			h.logPanic(ctx, v)
			if tw.begun {
				panic(http.ErrAbortHandler)
			}
			clear(w.Header())
			refuse(w, http.StatusInternalServerError, http.StatusText(http.StatusInternalServerError))
		}
	}()
	r = r.WithContext(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
	wr.handler.ServeHTTP(tw, r)
}

// trackedWriter knows whether an answer has begun, after which a panic can only break the connection.
type trackedWriter struct {
	http.ResponseWriter
	begun bool
}

// WriteHeader implements http.ResponseWriter.
func (w *trackedWriter) WriteHeader(status int) {
	w.begun = true
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *trackedWriter) Write(b []byte) (int, error) {
	w.begun = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the writer below.
func (w *trackedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
