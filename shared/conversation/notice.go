package conversation

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"steno/shared/teams"
)

// NoticeFormat is the format of a LegNotice.
const NoticeFormat = "steno-leg/1"

// NoticeKind is what a notice says.
type NoticeKind string

// The kinds of notices.
const (
	LegStarted NoticeKind = "started" // the recorder took the leg
	LegEnded   NoticeKind = "ended"   // the recorder closed it, and all of it is in evidence
	LegCheck   NoticeKind = "check"   // finalize asks itself whether the leg still lives
)

// LegNotice is a message of the queue call-legs. It names what to look at; what
// happened stands in the leg's bundles.
type LegNotice struct {
	Format   string         `json:"format"` // NoticeFormat
	Kind     NoticeKind     `json:"kind"`
	Tenant   teams.TenantID `json:"tenant"`
	Leg      LegID          `json:"leg"`
	Call     teams.CallID   `json:"call"`
	Chain    teams.ChainID  `json:"chain"`
	Recorder string         `json:"recorder"` // instance that records
	At       time.Time      `json:"at"`
	// Invite is in the first notice, so that a running call can be listed.
	Invite *teams.Invite `json:"invite,omitempty"`
	// Epoch is the start of bundle 0, zero while there is none.
	Epoch time.Time `json:"epoch,omitzero"`
	// Bundles is one more than the highest Seq, Packs the number of packs; Parts is how
	// many parts stand in for bundle Bundles-1 after a crash, 0 if it is whole.
	Bundles int     `json:"bundles,omitempty"`
	Parts   int     `json:"parts,omitempty"`
	Packs   int     `json:"packs,omitempty"`
	Outcome Outcome `json:"outcome,omitempty"`
	Reason  string  `json:"reason,omitempty"`
	// Attempt counts checks.
	Attempt int `json:"attempt,omitempty"`
}

// MessageID is the deterministic id under which the notice is queued.
func (n LegNotice) MessageID() string {
	id := string(n.Leg) + "-" + string(n.Kind)
	if n.Kind == LegCheck {
		id += "-" + strconv.Itoa(n.Attempt)
	}
	return id
}

// EncodeNotice writes the queue message for a notice.
func EncodeNotice(n LegNotice) ([]byte, error) {
	n.Format = NoticeFormat
	if err := n.check(); err != nil {
		return nil, err
	}
	return json.Marshal(n)
}

// DecodeNotice reads a queue message. Messages come from our own processes, so an
// unknown member or an impossible value is a fault, not a variation.
func DecodeNotice(b []byte) (LegNotice, error) {
	var n LegNotice
	err := decodeStrict(b, &n, "format", "kind", "tenant", "leg", "call", "chain", "recorder", "at", "invite",
		"epoch", "bundles", "parts", "packs", "outcome", "reason", "attempt")
	if err != nil {
		return LegNotice{}, fmt.Errorf("leg notice: %w", err)
	}
	if err := n.check(); err != nil {
		return LegNotice{}, err
	}
	return n, nil
}

func (n LegNotice) check() error {
	var faults []error
	fault := func(what string) { faults = append(faults, errors.New("leg notice: "+what)) }
	if n.Format != NoticeFormat {
		fault("format is not " + NoticeFormat)
	}
	if n.Kind != LegStarted && n.Kind != LegEnded && n.Kind != LegCheck {
		fault("unknown kind")
	}
	if t, err := teams.ParseTenantID(string(n.Tenant)); err != nil || t != n.Tenant {
		fault("tenant is not a lower-case GUID")
	}
	if _, err := teams.ParseCallID(string(n.Call)); err != nil {
		fault("call id is malformed")
	}
	if _, err := teams.ParseChainID(string(n.Chain)); err != nil {
		fault("call chain id is malformed")
	}
	if n.Leg != LegOf(n.Tenant, n.Call) {
		fault("leg is not that of tenant and call")
	}
	if n.Bundles < 0 || n.Parts < 0 || n.Packs < 0 || n.Attempt < 0 {
		fault("negative count")
	}
	if n.Kind == LegStarted && n.Invite == nil {
		fault("started without its invite")
	}
	if n.Kind == LegEnded {
		switch n.Outcome {
		case OutcomeRecorded, OutcomeEmpty, OutcomeExcluded, OutcomeLost:
		default:
			fault("ended without an outcome")
		}
	}
	return errors.Join(faults...)
}
