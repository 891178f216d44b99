package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
)

// Modalities are the kinds of communication a data management policy may name, as
// package conversation spells them.
var Modalities = []string{"chat", "voice", "video", "screen"}

// FromCreation starts a policy's clock when the communication ended: with the day of a
// chat, and with the last leg of a call.
const FromCreation = "creation"

// DefaultPolicy is the policy of whatever no configured one matches: six years, which is
// what FINRA rule 4511(b) asks for where no other period is named.
// https://www.finra.org/rules-guidance/rulebooks/finra-rules/4511
var DefaultPolicy = DataPolicy{Name: "default", Keep: Term{Years: 6}, Starts: FromCreation}

// DataPolicy is a data management policy: how long conversations of some kind, of some
// desks, are kept.
type DataPolicy struct {
	Name string
	// Modalities and Desks say what it is for; empty means all of the tenant.
	Modalities []string
	Desks      []string
	Keep       Term
	// Starts is FromCreation, or the name of an event that must be recorded for a
	// conversation before its term begins. Until then nothing of it is disposed.
	Starts string
}

// EventBased reports whether the policy's clock waits for an event.
func (p DataPolicy) EventBased() bool { return p.Starts != "" && p.Starts != FromCreation }

// specificity ranks policies that match the same thing: one for desks before one for
// modalities before one for all.
func (p DataPolicy) specificity() int {
	n := 0
	if len(p.Desks) > 0 {
		n += 2
	}
	if len(p.Modalities) > 0 {
		n++
	}
	return n
}

// matches reports whether the policy is for a modality on a desk; "" is no desk.
func (p DataPolicy) matches(modality, desk string) bool {
	return (len(p.Modalities) == 0 || slices.Contains(p.Modalities, modality)) && (len(p.Desks) == 0 || slices.Contains(p.Desks, desk))
}

// DataPolicies are a tenant's data management policies. DefaultPolicy stands behind them.
type DataPolicies []DataPolicy

// match is the most specific policy for a modality on a desk.
func (ps DataPolicies) match(modality, desk string) DataPolicy {
	best, rank := DefaultPolicy, -1
	for _, p := range ps {
		if s := p.specificity(); s > rank && p.matches(modality, desk) {
			best, rank = p, s
		}
	}
	return best
}

// Shortest is the shortest term there is, the default's included: nothing younger is due.
func (ps DataPolicies) Shortest() Term {
	least := DefaultPolicy.Keep
	for _, p := range ps {
		if p.Keep.After(epochOfTerms).Before(least.After(epochOfTerms)) {
			least = p.Keep
		}
	}
	return least
}

// storedPolicy is a policy as the configuration spells it.
type storedPolicy struct {
	Name       string   `json:"name"`
	Modalities []string `json:"modalities,omitempty"`
	Desks      []string `json:"desks,omitempty"`
	Keep       string   `json:"keep"`
	Starts     string   `json:"starts,omitempty"`
}

var (
	policyName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
	eventName  = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
)

// maxPolicies bounds what a configuration may hold.
const maxPolicies = 100

// ParseDataPolicies reads the configuration value STENO_DATA_POLICIES: a JSON array of
// {"name","modalities","desks","keep","starts"}, empty for none. It reports every fault at
// once, except where the JSON itself cannot be read.
func ParseDataPolicies(s string) (DataPolicies, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	if err := exactMembers(s, "name", "modalities", "desks", "keep", "starts"); err != nil {
		return nil, fmt.Errorf("data policies: %w", err)
	}
	dec := json.NewDecoder(strings.NewReader(s))
	dec.DisallowUnknownFields()
	var stored []storedPolicy
	if err := dec.Decode(&stored); err != nil {
		return nil, fmt.Errorf("data policies: want a JSON array of {name, modalities, desks, keep, starts}: %w", err)
	}
	if len(stored) > maxPolicies {
		return nil, fmt.Errorf("data policies: %d, more than the %d accepted", len(stored), maxPolicies)
	}
	var faults []error
	out := make(DataPolicies, 0, len(stored))
	for i, p := range stored {
		policy, err := p.read()
		if err != nil {
			faults = append(faults, fmt.Errorf("data policy %d (%.40q): %w", i+1, p.Name, err))
		}
		for j, other := range out {
			if p.Name != "" && other.Name == p.Name {
				faults = append(faults, fmt.Errorf("data policy %d: the name %.40q is that of policy %d", i+1, p.Name, j+1))
			}
			if where, both := overlap(other, policy); both {
				faults = append(faults, fmt.Errorf("data policies %d (%.40q) and %d (%.40q) overlap on %s and neither is more specific", j+1, other.Name, i+1, p.Name, where))
			}
		}
		out = append(out, policy)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	return out, nil
}

// read checks one policy for itself.
func (p storedPolicy) read() (DataPolicy, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	switch {
	case p.Name == "":
		fault("it has no name")
	case !policyName.MatchString(p.Name):
		fault("want a name of 1 to 32 lower-case letters, digits and dashes")
	case p.Name == DefaultPolicy.Name:
		fault("this name is that of the built-in policy")
	}
	for _, m := range p.Modalities {
		if !slices.Contains(Modalities, m) {
			fault("unknown modality %.40q; want some of %v", m, Modalities)
		}
	}
	for _, d := range p.Desks {
		if !deskName.MatchString(d) {
			fault("desk %.40q: want lower-case letters, digits and dashes", d)
		}
	}
	if twice, ok := repeated(append(slices.Clone(p.Modalities), p.Desks...)); ok {
		fault("%.40q is listed twice", twice)
	}
	keep, err := ParseTerm(p.Keep)
	if err != nil {
		fault("keep: %w", err)
	}
	starts := p.Starts
	if starts == "" {
		starts = FromCreation
	}
	if !eventName.MatchString(starts) {
		fault("starts %.40q: want %q or the name of an event in lower-case letters, digits and dashes", p.Starts, FromCreation)
	}
	return DataPolicy{Name: p.Name, Modalities: p.Modalities, Desks: p.Desks, Keep: keep, Starts: starts}, errors.Join(faults...)
}

// CheckDesks reports the policies that name a desk no role group and no rule of teams has:
// such a policy matches nobody, and whom it was meant for is kept under another.
func (ps DataPolicies) CheckDesks(groups []RoleGroup, rules []TeamRule) error {
	var faults []error
	for _, p := range ps {
		for _, d := range p.Desks {
			if !slices.ContainsFunc(groups, func(g RoleGroup) bool { return g.Role == RecordedUser && g.Desk == d }) &&
				!slices.ContainsFunc(rules, func(r TeamRule) bool { return r.Desk == d }) {
				faults = append(faults, fmt.Errorf("data policy %q: no role group of recorded users and no rule of teams has the desk %q", p.Name, d))
			}
		}
	}
	return errors.Join(faults...)
}

// overlap reports whether two policies of the same specificity match one thing, and which.
func overlap(a, b DataPolicy) (where string, both bool) {
	if a.specificity() != b.specificity() {
		return "", false
	}
	modality, ok := shared(a.Modalities, b.Modalities)
	if !ok {
		return "", false
	}
	desk, ok := shared(a.Desks, b.Desks)
	if !ok {
		return "", false
	}
	if modality == "" {
		modality = "every modality"
	}
	if desk == "" {
		desk = "every desk"
	} else {
		desk = "desk " + desk
	}
	return modality + " of " + desk, true
}

// shared is an element of both lists; two empty lists share everything, spelled "".
func shared(a, b []string) (string, bool) {
	if len(a) == 0 && len(b) == 0 {
		return "", true
	}
	for _, x := range a {
		if slices.Contains(b, x) {
			return x, true
		}
	}
	return "", false
}

func repeated(list []string) (string, bool) {
	for i, x := range list {
		if slices.Contains(list[:i], x) {
			return x, true
		}
	}
	return "", false
}

// exactMembers walks JSON and refuses what encoding/json would take in silence: a member
// that stands twice, one spelled in another case, and anything behind the value.
func exactMembers(s string, names ...string) error {
	dec := json.NewDecoder(strings.NewReader(s))
	dec.UseNumber()
	if err := walkValue(dec, names, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// maxDepth bounds the JSON of this package: an array of objects with arrays in them.
const maxDepth = 4

func walkValue(dec *json.Decoder, names []string, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	delim, nested := tok.(json.Delim)
	if !nested {
		return nil
	}
	if depth == maxDepth {
		return errors.New("JSON nested deeper than it has reason to be")
	}
	seen := map[string]bool{}
	for dec.More() {
		if delim == '{' {
			key, err := dec.Token()
			if err != nil {
				return fmt.Errorf("not JSON: %w", err)
			}
			name, _ := key.(string) // the decoder yields no other key
			if seen[name] {
				return fmt.Errorf("member %.40q stands twice in one object", name)
			}
			if names != nil && !slices.Contains(names, name) {
				return fmt.Errorf("unknown member %.40q; want some of %v", name, names)
			}
			seen[name] = true
		}
		if err := walkValue(dec, names, depth+1); err != nil {
			return err
		}
	}
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	return nil
}

// Digest identifies the policies: hex SHA-256 of what they say, in their order.
func (ps DataPolicies) Digest() string {
	parts := make([]string, 0, len(ps))
	for _, p := range ps {
		parts = append(parts, fmt.Sprintf("%q %q %q %s %q", p.Name, p.Modalities, p.Desks, p.Keep, p.Starts))
	}
	return digestOf([]byte("steno-data-policies-v1\x00" + strings.Join(parts, "\n")))
}
