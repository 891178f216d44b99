package worm

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

const (
	headerUntil = "x-ms-immutability-policy-until-date"
	headerMode  = "x-ms-immutability-policy-mode"
	headerHold  = "x-ms-legal-hold"
)

// A protection is a blob's time-based policy, if Mode is set, and its hold.
type protection struct {
	Until time.Time
	Mode  Mode
	Hold  bool
}

func (s protection) active(now time.Time) bool { return s.Mode != "" && s.Until.After(now) }

// refusal says why the blob cannot be changed or deleted, or nil. The codes are
// those of https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes.
func (s protection) refusal(now time.Time) *failure {
	switch {
	case s.Hold:
		return &failure{http.StatusConflict, "BlobImmutableDueToLegalHold",
			"This operation is not permitted as the blob is immutable due to one or more legal holds."}
	case s.active(now):
		return &immutableDueToPolicy
	}
	return nil
}

var immutableDueToPolicy = failure{http.StatusConflict, "BlobImmutableDueToPolicy",
	"This operation is not permitted as the blob is immutable due to a policy."}

// set puts the protection into response headers.
func (s protection) set(h http.Header) {
	if s.Mode != "" {
		h.Set(headerUntil, s.Until.UTC().Format(http.TimeFormat))
		h.Set(headerMode, string(s.Mode))
	}
	if s.Hold {
		h.Set(headerHold, "true")
	}
}

func (p *Proxy) protectionOf(n name) protection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.protected[n]
}

// record makes s the blob's protection, in the journal first.
func (p *Proxy) record(n name, s protection) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.protected[n] == s {
		return nil
	}
	e := entry{Container: n.container, Blob: n.blob, Mode: s.Mode, Until: s.Until, Hold: s.Hold}
	if err := p.journal.append(e); err != nil {
		return err
	}
	p.remember(n, s)
	return nil
}

// tell adds the blob's protection to the answer of Get Blob and Get Blob
// Properties.
func (p *Proxy) tell(n name) then {
	return func(r *http.Response) error {
		reads := r.Request.Method == http.MethodGet || r.Request.Method == http.MethodHead
		if reads && r.StatusCode < http.StatusBadRequest {
			p.protectionOf(n).set(r.Header)
		}
		return nil
	}
}

// policyHeaders reads the protection that a request asks for. A mode left out
// is Unlocked, as Set Blob Immutability Policy documents.
func policyHeaders(h http.Header, now time.Time) (protection, *failure) {
	var s protection
	invalid := func(header string) (protection, *failure) {
		return protection{}, &failure{http.StatusBadRequest, "InvalidHeaderValue",
			fmt.Sprintf("The value for one of the HTTP headers is not in the correct format: %s.", header)}
	}
	if v := h.Get(headerHold); v != "" {
		hold, err := strconv.ParseBool(strings.ToLower(v))
		if err != nil || len(v) < len("true") {
			return invalid(headerHold)
		}
		s.Hold = hold
	}
	until, mode := h.Get(headerUntil), h.Get(headerMode)
	if until == "" && mode == "" {
		return s, nil
	}
	at, err := http.ParseTime(until)
	if err != nil || !at.After(now) {
		return invalid(headerUntil)
	}
	s.Until, s.Mode = at.UTC(), Unlocked
	switch {
	case mode == "" || strings.EqualFold(mode, string(Unlocked)):
	case strings.EqualFold(mode, string(Locked)):
		s.Mode = Locked
	default:
		return invalid(headerMode)
	}
	return s, nil
}

// create guards and then records the creation of a blob's content.
func (p *Proxy) create(w http.ResponseWriter, r *http.Request, t target) {
	now := p.cfg.Now()
	s, bad := policyHeaders(r.Header, now)
	if bad == nil {
		bad = p.protectionOf(t.name).refusal(now)
	}
	if bad != nil {
		refuse(w, r, *bad)
		return
	}
	p.mu.Lock()
	def, writeOnce := p.containers[t.container]
	p.mu.Unlock()
	if writeOnce && r.Header.Get("If-None-Match") != "*" {
		exists, err := p.cfg.Exists(r.Context(), t.container, t.blob)
		if err != nil {
			p.forward.ErrorHandler(w, r, fmt.Errorf("look up blob %s: %w", t.blob, err))
			return
		}
		if exists {
			refuse(w, r, immutableDueToPolicy)
			return
		}
	}
	if writeOnce && s.Mode == "" {
		s.Mode, s.Until = def.Mode, now.AddDate(0, 0, def.Days).UTC().Truncate(time.Second)
	}
	p.pass(w, r, func(resp *http.Response) error {
		if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusAccepted {
			return nil
		}
		return p.record(t.name, s)
	})
}

// change guards a deletion, an append, or a change that leaves the content.
func (p *Proxy) change(w http.ResponseWriter, r *http.Request, t target) {
	s := p.protectionOf(t.name)
	bad := s.refusal(p.cfg.Now())
	if bad == nil && s.Mode != "" && t.rewrites() {
		bad = &immutableDueToPolicy
	}
	if bad != nil {
		refuse(w, r, *bad)
		return
	}
	p.pass(w, r, func(resp *http.Response) error {
		if r.Method == http.MethodDelete && resp.StatusCode == http.StatusAccepted {
			return p.record(t.name, protection{})
		}
		return nil
	})
}

// setProtection answers Set and Delete Blob Immutability Policy and Set Blob
// Legal Hold
// (https://learn.microsoft.com/rest/api/storageservices/set-blob-immutability-policy,
// .../delete-blob-immutability-policy, .../set-blob-legal-hold). Azurite is
// asked first: it checks the caller's authorization and then says that it does
// not implement the call. Any other answer is the caller's.
func (p *Proxy) setProtection(w http.ResponseWriter, r *http.Request, t target) {
	authorized := false
	p.pass(&relay{ResponseWriter: w, drop: &authorized}, r, func(resp *http.Response) error {
		authorized = resp.StatusCode == http.StatusNotImplemented
		return nil
	})
	if !authorized {
		return
	}
	if t.snapshot {
		refuse(w, r, failure{http.StatusNotImplemented, "APINotImplemented", "Snapshots have no policies here."})
		return
	}
	exists, err := p.cfg.Exists(r.Context(), t.container, t.blob)
	if err != nil {
		p.forward.ErrorHandler(w, r, fmt.Errorf("look up blob %s: %w", t.blob, err))
		return
	}
	if !exists {
		refuse(w, r, failure{http.StatusNotFound, "BlobNotFound", "The specified blob does not exist."})
		return
	}
	s, bad := p.amended(r, t)
	if bad != nil {
		refuse(w, r, *bad)
		return
	}
	if err := p.record(t.name, s); err != nil {
		p.forward.ErrorHandler(w, r, fmt.Errorf("record policy of blob %s: %w", t.blob, err))
		return
	}
	h := answer(w, r)
	if t.comp == "legalhold" {
		h.Set(headerHold, strconv.FormatBool(s.Hold))
	} else if r.Method == http.MethodPut {
		protection{Until: s.Until, Mode: s.Mode}.set(h)
	}
	w.WriteHeader(http.StatusOK)
}

// amended returns the blob's protection as the request wants it.
func (p *Proxy) amended(r *http.Request, t target) (protection, *failure) {
	s := p.protectionOf(t.name)
	asked, bad := policyHeaders(r.Header, p.cfg.Now())
	if bad != nil {
		return s, bad
	}
	missing := func(header string) *failure {
		return &failure{http.StatusBadRequest, "MissingRequiredHeader",
			fmt.Sprintf("An HTTP header that's mandatory for this request is not specified: %s.", header)}
	}
	switch {
	case t.comp == "legalhold" && r.Method == http.MethodPut:
		if r.Header.Get(headerHold) == "" {
			return s, missing(headerHold)
		}
		s.Hold = asked.Hold
	case t.comp == "immutabilitypolicies" && r.Method == http.MethodPut:
		if asked.Mode == "" {
			return s, missing(headerUntil)
		}
		if s.Mode == Locked && (asked.Mode != Locked || asked.Until.Before(s.Until)) {
			return s, &failure{http.StatusConflict, immutableDueToPolicy.code, "A locked policy can only be extended."}
		}
		s.Until, s.Mode = asked.Until, asked.Mode
	case t.comp == "immutabilitypolicies" && r.Method == http.MethodDelete:
		if s.Mode == Locked {
			return s, &failure{http.StatusConflict, "ImmutabilityPolicyDeleteOnLockedPolicy",
				"A locked policy cannot be deleted."}
		}
		s.Until, s.Mode = time.Time{}, ""
	default:
		return s, &failure{http.StatusMethodNotAllowed, "UnsupportedHttpVerb",
			"The resource doesn't support the specified HTTP verb."}
	}
	return s, nil
}
