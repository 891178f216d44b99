// Package config reads a process's environment once, and reports everything that is
// wrong with it at once, before anything listens. Only the two main packages use it.
package config

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Prefix starts every key of Steno's own. A key that starts so and that nobody reads
// is a fault: a misspelled setting must not pass as a default.
const Prefix = "STENO_"

// Secret is a value that does not print. Package fmt calls no methods of unexported
// fields, so a struct that is ever printed must not keep one in such a field.
type Secret string

// Format hides the value from every verb of package fmt.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// String hides the value from whoever asks for text.
func (Secret) String() string { return "***" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "***" }

// MarshalText hides the value from JSON logs.
func (Secret) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Reader reads keys of an environment and collects faults. Faults name the key and
// what is wanted, and never the value.
type Reader struct {
	env    map[string]string
	known  map[string]bool
	faults []error
}

// Read takes an environment in the form of os.Environ.
func Read(environ []string) *Reader {
	r := &Reader{env: map[string]string{}, known: map[string]bool{}}
	for _, kv := range environ {
		if k, v, ok := strings.Cut(kv, "="); ok {
			r.env[k] = v
		}
	}
	return r
}

// Fault adds a fault that the caller found.
func (r *Reader) Fault(key string, err error) {
	r.faults = append(r.faults, fmt.Errorf("%s: %w", key, err))
}

// Host names keys that are read by the Functions host or by Azure's libraries and
// not here.
func (r *Reader) Host(keys ...string) {
	for _, k := range keys {
		r.known[k] = true
	}
}

// Lookup returns a value, and whether it is set to something.
func (r *Reader) Lookup(key string) (string, bool) {
	r.known[key] = true
	v := r.env[key]
	return v, v != ""
}

// String returns a required value.
func (r *Reader) String(key string) string {
	v, ok := r.Lookup(key)
	if !ok {
		r.Fault(key, errors.New("is required"))
	}
	return v
}

// Optional returns a value, or def where none is set.
func (r *Reader) Optional(key, def string) string {
	if v, ok := r.Lookup(key); ok {
		return v
	}
	return def
}

// Parse reads a required value with a parser of its type.
func Parse[T any](r *Reader, key string, parse func(string) (T, error)) T {
	s := r.String(key)
	if s == "" {
		var zero T
		return zero
	}
	v, err := parse(s)
	if err != nil {
		r.Fault(key, err)
	}
	return v
}

// Duration returns a duration between low and high, or def where none is set.
func (r *Reader) Duration(key string, def, low, high time.Duration) time.Duration {
	s, ok := r.Lookup(key)
	if !ok {
		return def
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < low || d > high {
		r.Fault(key, fmt.Errorf("want a duration from %s to %s, such as 15m or 24h", low, high))
		return def
	}
	return d
}

// Durations returns a comma-separated list of durations, or def where none is set.
func (r *Reader) Durations(key string, def []time.Duration) []time.Duration {
	s, ok := r.Lookup(key)
	if !ok {
		return def
	}
	var out []time.Duration
	for part := range strings.SplitSeq(s, ",") {
		d, err := time.ParseDuration(strings.TrimSpace(part))
		if err != nil || d < 0 {
			r.Fault(key, errors.New("want durations separated by commas, such as 0s,24h,72h"))
			return def
		}
		out = append(out, d)
	}
	return out
}

// Number returns a number between low and high, or def where none is set.
func (r *Reader) Number(key string, def, low, high float64) float64 {
	s, ok := r.Lookup(key)
	if !ok {
		return def
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || !(f >= low && f <= high) {
		r.Fault(key, fmt.Errorf("want a number from %g to %g", low, high))
		return def
	}
	return f
}

// Bool returns true or false, false where none is set.
func (r *Reader) Bool(key string) bool {
	s, ok := r.Lookup(key)
	if ok && s != "true" && s != "false" {
		r.Fault(key, errors.New("want true or false"))
	}
	return s == "true"
}

// URL returns a required https URL without query, fragment or user.
func (r *Reader) URL(key string) string { return Parse(r, key, httpsURL) }

// OptionalURL is URL with a default.
func (r *Reader) OptionalURL(key, def string) string {
	s := r.Optional(key, def)
	if _, err := httpsURL(s); err != nil {
		r.Fault(key, err)
	}
	return strings.TrimSuffix(s, "/")
}

func httpsURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || strings.ContainsAny(s, "?#") {
		return "", errors.New("want an https URL without query or user")
	}
	return strings.TrimSuffix(s, "/"), nil
}

// Err returns all faults, unknown keys included, or nil.
func (r *Reader) Err() error {
	faults := slices.Clone(r.faults)
	for _, k := range slices.Sorted(maps.Keys(r.env)) {
		if strings.HasPrefix(k, Prefix) && !r.known[k] {
			faults = append(faults, fmt.Errorf("%s: unknown setting", k))
		}
	}
	return errors.Join(faults...)
}

// Keys lists every key that was asked for, sorted.
func (r *Reader) Keys() []string { return slices.Sorted(maps.Keys(r.known)) }
