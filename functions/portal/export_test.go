package portal

// What the tests outside the package look at.

// Sanitize is sanitize.
var Sanitize = sanitize

// The limits that the tests go up to.
const (
	MaxHTML           = maxHTML
	MaxText           = maxText
	MaxShown          = maxShown
	RequestsBurst     = requestsBurst
	RequestsPerSecond = requestsPerSecond
	OpensPerMinute    = opensPerMinute
	MaxConcurrent     = maxConcurrent
	MaxWaiting        = maxWaiting
)

// Changes lists the routes that change something.
func Changes() []string {
	var out []string
	for _, rt := range apiChanges {
		out = append(out, rt.pattern)
	}
	return out
}

// Patterns lists the routes of the API below Base + "/v1/" that change nothing.
func Patterns() []string {
	var out []string
	for _, rt := range apiRoutes {
		out = append(out, rt.pattern)
	}
	return out
}

// ContentPatterns lists those by which content leaves.
func ContentPatterns() []string {
	var out []string
	for _, rt := range apiRoutes {
		if rt.content {
			out = append(out, rt.pattern)
		}
	}
	return out
}

// OpenAPI is the document as served.
func OpenAPI() []byte { return openapiDocument }
