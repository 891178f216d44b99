package lookback

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"steno/shared/policy"
	"steno/shared/rawjson"
	"steno/shared/teams"
)

// MaxMessage is how long a message may be, in bytes.
const MaxMessage = 4 << 10

// message is what asks for a look-back, as an operator writes it.
type message struct {
	Scope struct {
		Users  []string `json:"users"`
		Groups []string `json:"groups"`
		Teams  []string `json:"teams"`
	} `json:"scope"`
	From        string `json:"from"`
	To          string `json:"to"`
	Reason      string `json:"reason"`
	RequestedBy string `json:"requestedBy"`
}

// Decode reads a message strictly: JSON, or the base64 of it, which is what some tools put
// on a queue. Names that it does not have, or that stand twice, are refused, and so is a
// message longer than MaxMessage. Its errors repeat no foreign text.
func Decode(b []byte) (policy.Lookback, error) {
	b, err := plain(b)
	if err != nil {
		return policy.Lookback{}, err
	}
	if err := once(b, "scope", "from", "to", "reason", "requestedBy"); err != nil {
		return policy.Lookback{}, err
	}
	var m message
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&m); err != nil {
		return policy.Lookback{}, errors.New("a member of the message is not of the kind that it should be")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return policy.Lookback{}, errors.New("something follows the message's JSON object")
	}
	return m.read()
}

func plain(b []byte) ([]byte, error) {
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("a message of %d bytes; want at most %d", len(b), MaxMessage)
	}
	b = bytes.TrimSpace(b)
	if len(b) > 0 && b[0] != '{' {
		decoded, err := base64.StdEncoding.Strict().DecodeString(string(b))
		if err != nil {
			return nil, errors.New("neither a JSON object nor the base64 of one")
		}
		b = bytes.TrimSpace(decoded)
	}
	if !json.Valid(b) || b[0] != '{' {
		return nil, errors.New("the message is not a JSON object")
	}
	return b, nil
}

// once refuses members that are not named, in exactly that case, or that stand twice.
func once(object []byte, names ...string) error {
	seen := map[string]bool{}
	return rawjson.Members(object, func(name string, value []byte) error {
		switch {
		case !slices.Contains(names, name):
			return errors.New("the message has a member that it should not have")
		case seen[name]:
			return fmt.Errorf("%s stands there twice", name)
		}
		seen[name] = true
		if name == "scope" {
			return once(value, "users", "groups", "teams")
		}
		return nil
	})
}

// read checks the forms of what the message holds and reports every fault at once.
func (m message) read() (j policy.Lookback, err error) {
	var faults []error
	check := func(name string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", name, err))
		}
	}
	j.Scope.Users, err = each(m.Scope.Users, teams.ParsePersonID)
	check("users", err)
	j.Scope.Groups, err = each(m.Scope.Groups, teams.ParseGroupID)
	check("groups", err)
	j.Scope.Teams, err = each(m.Scope.Teams, teams.ParsePersonID)
	check("teams", err)
	j.From, err = when(m.From)
	check("from", err)
	j.To, err = when(m.To)
	check("to", err)
	j.RequestedBy, err = teams.ParsePersonID(m.RequestedBy)
	check("requestedBy", err)
	j.Reason = m.Reason
	return j, errors.Join(faults...)
}

func each[T ~string](from []string, parse func(string) (T, error)) (out []T, err error) {
	for _, s := range from {
		v, err := parse(s)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

// when reads a date, which is midnight UTC, or a time.
func when(s string) (time.Time, error) {
	for _, form := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(form, s); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, errors.New("want a date such as 2026-01-31, or an RFC 3339 time")
}
