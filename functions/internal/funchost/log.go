package funchost

import (
	"context"
	"io"
	"log/slog"
	"net/http"
)

// Keys of the attributes that LogHandler adds.
const (
	FunctionKey   = "function"
	InvocationKey = "invocation_id"
)

// NewLog returns a logger that writes JSON lines with function and invocation id. Its writer is os.Stdout in a handler: the host
// takes every line on stderr for an error.
func NewLog(w io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(LogHandler(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})))
}

// LogHandler adds to each record the function and the invocation id that its context belongs to. The host correlates nothing a
// handler prints, so the ids must stand in the line. Attributes go where next puts them: wrap before WithGroup.
func LogHandler(next slog.Handler) slog.Handler { return logHandler{next} }

type logHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h logHandler) Handle(ctx context.Context, r slog.Record) error {
	if inv, ok := ctx.Value(invocationContext{}).(invocation); ok {
		r = r.Clone()
		r.AddAttrs(slog.String(FunctionKey, inv.function), slog.String(InvocationKey, inv.id))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return logHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h logHandler) WithGroup(name string) slog.Handler { return logHandler{h.Handler.WithGroup(name)} }

type invocationContext struct{}

type invocation struct{ function, id string }

func withInvocation(ctx context.Context, function, id string) context.Context {
	return context.WithValue(ctx, invocationContext{}, invocation{function, id})
}

// invocationID returns the host's id for the log. It proves nothing: a client can send the header too, so an odd one is dropped.
func invocationID(r *http.Request) string {
	id := r.Header.Get(invocationHeader)
	if len(id) > maxInvocationID {
		return ""
	}
	for i := range len(id) {
		if c := id[i]; !unreserved(c) {
			return ""
		}
	}
	return id
}
