package funchost

import "time"

// Limits of the server. They hold for every request; Config and Route can only narrow them.
const (
	// ReadHeaderTimeout bounds the arrival of a request's header.
	ReadHeaderTimeout = 5 * time.Second
	// ReadTimeout bounds the arrival of a whole request. A web request that is late is answered 408.
	ReadTimeout = 20 * time.Second
	// IdleTimeout closes a kept-alive connection without requests.
	IdleTimeout = 60 * time.Second
	// MaxHeaderBytes bounds a request's header. net/http grants 4 KiB more.
	MaxHeaderBytes = 16 << 10

	// MaxEnvelopeBytes bounds the body of an invocation. A message of 192 KiB grows at most sixfold when its text is quoted twice, and
	// the host may copy its fields into Metadata.
	MaxEnvelopeBytes = 4 << 20
	// MaxDepth bounds the nesting of an invocation's JSON.
	MaxDepth = 32
	// MaxTokens bounds the values and keys in an invocation's JSON.
	MaxTokens = 10_000

	// DefaultWebBody bounds the body of a web request whose Route names no limit, MaxWebBody what a Route may ask for.
	DefaultWebBody = 1 << 20
	MaxWebBody     = 4 << 20
	// DefaultWebTimeout is the time a web handler has when its Route names none; MaxWebTimeout what a Route may ask for. Azure's front
	// end gives up after 230 s.
	DefaultWebTimeout = 30 * time.Second
	MaxWebTimeout     = 200 * time.Second
	// MaxWebRequests bounds concurrent web requests: with bodies of MaxWebBody they stay within half of a 512 MB instance.
	MaxWebRequests = 64
	// WebQueueTimeout is how long a web request waits for its turn before it is answered 503.
	WebQueueTimeout = 5 * time.Second

	// DefaultFunctionTimeout is host.json's functionTimeout.
	DefaultFunctionTimeout = 10 * time.Minute
	// DefaultMargin is how long before the function timeout an invocation's context ends.
	DefaultMargin = 30 * time.Second
	// DefaultMaxConcurrent bounds invocations running at once in one process.
	DefaultMaxConcurrent = 16
	// ShutdownGrace is how long Serve lets running requests end before it cancels them, and CancelGrace how long it waits after that.
	ShutdownGrace = 20 * time.Second
	CancelGrace   = 5 * time.Second
)

const (
	maxReason       = 1 << 10 // of Parked.Reason
	maxInvocationID = 64      // of what is logged as invocation id; the host sends a GUID
)
