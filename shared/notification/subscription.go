package notification

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"hash/fnv"
	"time"

	"steno/shared/teams"
)

// Limits of Graph.
// https://learn.microsoft.com/graph/api/resources/subscription
const (
	// MaxLifetime is how long a subscription to chat messages may live at most.
	MaxLifetime = 4320 * time.Minute
	// Lifetime is what is asked for: a little less, since clocks differ.
	Lifetime = MaxLifetime - 10*time.Minute
	// RenewPause is the least time between two renewals of a subscription.
	// https://learn.microsoft.com/graph/change-notifications-lifecycle-events
	RenewPause = 10 * time.Minute
)

// Errors of the calls that manage subscriptions.
var (
	// ErrGone says that Graph has no such subscription any more.
	ErrGone = errors.New("no such subscription")
	// ErrTaken says that there is a subscription for the same resource and change types.
	ErrTaken = errors.New("there is a subscription for this already")
)

// Resource is what a subscription listens to: all chats of a person, or, without a
// custodian, all chats or all channels of the tenant.
type Resource struct {
	Source    teams.Source   `json:"source,omitempty"` // Chats or Channels
	Custodian teams.PersonID `json:"custodian,omitempty"`
}

// Path names the resource as Graph does.
func (r Resource) Path() string {
	switch {
	case r.Source == teams.Channels:
		return "/teams/getAllMessages"
	case r.Custodian == "":
		return "/chats/getAllMessages"
	}
	return "/users/" + string(r.Custodian) + "/chats/getAllMessages"
}

// Wide reports whether the resource is the whole tenant's.
func (r Resource) Wide() bool { return r.Custodian == "" }

// Subscription is one that we made.
type Subscription struct {
	ID       string   `json:"id"` // Graph's
	Resource Resource `json:"resource"`
	// State is the SHA-256 of the clientState, all that is kept of it: the value is drawn at
	// random, and a digest is enough to compare.
	State       []byte    `json:"state"`
	Certificate string    `json:"certificate"` // id of the one whose key Graph encrypts under
	Expires     time.Time `json:"expires"`
	Renewed     time.Time `json:"renewed"` // when it was created or last renewed
	// Asked is when Graph last sent a lifecycle event for it; see Register.Ask.
	Asked time.Time `json:"-"`
}

// NewState draws a clientState of 256 bits, and returns what is kept of it. Graph allows 128
// characters.
func NewState() (state string, digest []byte) {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails since Go 1.24
	state = base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(state))
	return state, sum[:]
}

// KnowsState compares a clientState with the subscription's, in constant time.
func (s Subscription) KnowsState(state string) bool {
	sum := sha256.Sum256([]byte(state))
	return subtle.ConstantTimeCompare(sum[:], s.State) == 1
}

// Due reports whether the subscription should be renewed: Graph asked for it, or about half
// of its life is over, a little more or less for each, so that those made together are not
// renewed together. Within RenewPause of the last renewal it is never due.
func (s Subscription) Due(now time.Time) bool {
	if now.Sub(s.Renewed) < RenewPause {
		return false
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(s.ID)) // never fails
	early := Lifetime / 8 * time.Duration(h.Sum32()%100) / 100
	return s.Asked.After(s.Renewed) || s.Expires.Sub(now) < Lifetime/2+early
}

// Certificate is the public half of a key pair that Graph encrypts under.
type Certificate struct {
	ID   string    `json:"id"`
	DER  []byte    `json:"der"`
	Made time.Time `json:"made"`
	// Unused is since when no subscription has named it; zero while one does.
	Unused time.Time `json:"unused,omitzero"`
}

// Register keeps subscriptions and certificates. Its methods may be repeated after a crash.
type Register interface {
	// Subscriptions lists all of them, by id.
	Subscriptions(ctx context.Context) ([]Subscription, error)
	// Save stores a subscription whatever was there under its id; Asked is left alone.
	Save(ctx context.Context, s Subscription) error
	// Remove forgets a subscription and what was asked for it. One that is gone already is no
	// error.
	Remove(ctx context.Context, id string) error
	// Ask records that Graph asked for the subscription to be looked after. It may meet a Save.
	Ask(ctx context.Context, id string, at time.Time) error

	// Certificates lists all of them, by id.
	Certificates(ctx context.Context) ([]Certificate, error)
	// SaveCertificate stores a certificate whatever was there under its id.
	SaveCertificate(ctx context.Context, c Certificate) error
	// RemoveCertificate forgets a certificate. One that is gone already is no error.
	RemoveCertificate(ctx context.Context, id string) error
}

// Request asks Graph for a subscription.
type Request struct {
	Resource     Resource
	URL          string // of function notifications
	LifecycleURL string
	State        string // the clientState itself
	Certificate  Certificate
	Expires      time.Time
}

// Standing is a subscription as Graph lists it.
type Standing struct {
	ID   string
	Path string // of the resource
	URL  string
}
