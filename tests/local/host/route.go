package host

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// routeSegment is one segment of a route template.
type routeSegment struct {
	literal  string // lower case; "" for a parameter
	param    string
	optional bool
	catchAll bool
}

type routeTemplate []routeSegment

// parseRoute reads a template such as items/{id:int}/{part?} or {*path}. Constraints on parameters are not checked.
func parseRoute(s string) (routeTemplate, error) {
	var t routeTemplate
	if s = strings.Trim(s, "/"); s == "" {
		return t, nil
	}
	parts := strings.Split(s, "/")
	for i, p := range parts {
		inner, ok := strings.CutPrefix(p, "{")
		if !ok {
			if p == "" || strings.ContainsAny(p, "{}") {
				return nil, fmt.Errorf("route %q: segment %q", s, p)
			}
			t = append(t, routeSegment{literal: strings.ToLower(p)})
			continue
		}
		inner, closed := strings.CutSuffix(inner, "}")
		seg := routeSegment{}
		inner, seg.optional = strings.CutSuffix(inner, "?")
		if name, ok := strings.CutPrefix(inner, "*"); ok {
			inner, seg.catchAll = name, true
		}
		seg.param, _, _ = strings.Cut(inner, ":")
		if !closed || seg.param == "" || (seg.catchAll || seg.optional) && i < len(parts)-1 {
			return nil, fmt.Errorf("route %q: segment %q", s, p)
		}
		t = append(t, seg)
	}
	return t, nil
}

// match returns the parameters of a path, given as decoded segments.
func (t routeTemplate) match(segments []string) (map[string]string, bool) {
	params := map[string]string{}
	for i, seg := range t {
		switch {
		case seg.catchAll:
			params[seg.param] = strings.Join(segments[min(i, len(segments)):], "/")
			return params, true
		case i >= len(segments):
			return params, seg.optional
		case seg.param != "":
			params[seg.param] = segments[i]
		case seg.literal != strings.ToLower(segments[i]):
			return nil, false
		}
	}
	return params, len(segments) == len(t)
}

// before reports whether t takes precedence over o: literals before parameters before catch-alls, from the left.
func (t routeTemplate) before(o routeTemplate) bool {
	rank := func(r routeTemplate, i int) int {
		switch {
		case i >= len(r):
			return 3
		case r[i].catchAll:
			return 2
		case r[i].param != "":
			return 1
		}
		return 0
	}
	for i := range max(len(t), len(o)) {
		if a, b := rank(t, i), rank(o, i); a != b {
			return a < b
		}
	}
	return false
}

// normalize splits an escaped path as Kestrel does before it routes: percent-encoding is decoded but for the slash, and dot segments
// are resolved. Empty segments stay.
func normalize(escaped string) ([]string, error) {
	var segments []string
	for s := range strings.SplitSeq(strings.TrimPrefix(escaped, "/"), "/") {
		kept := strings.NewReplacer("%2F", "%252F", "%2f", "%252F").Replace(s)
		s, err := url.PathUnescape(kept)
		if err != nil {
			return nil, err
		}
		switch {
		case strings.ContainsRune(s, 0):
			return nil, errors.New("null character in path")
		case s == ".":
		case s == "..":
			segments = segments[:max(len(segments)-1, 0)]
		default:
			segments = append(segments, s)
		}
	}
	return segments, nil
}

// reencode writes normalized segments as the path that is forwarded.
func reencode(segments []string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(strings.ReplaceAll(url.PathEscape(s), "%252F", "%2F"))
	}
	return b.String()
}
