package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"steno/shared/policy"
)

// documents are JSON documents under revisions, as a table keeps them.
type documents struct {
	mu   sync.Mutex
	last int
	m    map[string]document
}

type document struct {
	data     []byte
	revision string
}

func (d *documents) put(key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if d.m == nil {
		d.m = map[string]document{}
	}
	d.last++
	d.m[key] = document{data, strconv.Itoa(d.last)}
	return nil
}

func (d *documents) insert(key string, v any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.m[key]; ok {
		return policy.ErrExists
	}
	return d.put(key, v)
}

func (d *documents) replace(key, revision string, v any) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if was, ok := d.m[key]; !ok || was.revision != revision {
		return policy.ErrChanged
	}
	return d.put(key, v)
}

func (d *documents) get(key string, into any) (revision string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	was, ok := d.m[key]
	if !ok {
		return "", policy.ErrNotFound
	}
	return was.revision, json.Unmarshal(was.data, into)
}

func (d *documents) remove(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.m, key)
}

// keys lists those in [from, to).
func (d *documents) keys(from, to string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.DeleteFunc(slices.Sorted(maps.Keys(d.m)), func(k string) bool { return k < from || k >= to })
}

// Matters are legal holds. Its zero value is empty and ready.
type Matters struct{ d documents }

// Insert implements policy.Matters.
func (s *Matters) Insert(_ context.Context, m policy.Matter) error { return s.d.insert(m.ID, m) }

// Get implements policy.Matters.
func (s *Matters) Get(_ context.Context, id string) (m policy.Matter, err error) {
	m.Revision, err = s.d.get(id, &m)
	return m, err
}

// List implements policy.Matters.
func (s *Matters) List(ctx context.Context) (out []policy.Matter, err error) {
	for _, k := range s.d.keys("", "~") {
		m, err := s.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, m)
	}
	return out, nil
}

// Replace implements policy.Matters.
func (s *Matters) Replace(_ context.Context, m policy.Matter) error {
	return s.d.replace(m.ID, m.Revision, m)
}

// Approvals are proposals. Its zero value is empty and ready.
type Approvals struct{ d documents }

// Insert implements policy.Approvals.
func (s *Approvals) Insert(_ context.Context, p policy.Proposal) error {
	return s.d.insert(p.Digest, p)
}

// Get implements policy.Approvals.
func (s *Approvals) Get(_ context.Context, digest string) (p policy.Proposal, err error) {
	p.Revision, err = s.d.get(digest, &p)
	return p, err
}

// Open implements policy.Approvals.
func (s *Approvals) Open(ctx context.Context) (out []policy.Proposal, err error) {
	for _, k := range s.d.keys("", "~") {
		p, err := s.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		if p.State == policy.ProposalPending || p.State == policy.ProposalApproved {
			out = append(out, p)
		}
	}
	return out, nil
}

// Replace implements policy.Approvals.
func (s *Approvals) Replace(_ context.Context, p policy.Proposal) error {
	return s.d.replace(p.Digest, p.Revision, p)
}

// Dispositions are dispositions and certificates. Its zero value is empty and ready.
type Dispositions struct{ d, certificates, events, sweep documents }

// Insert implements policy.Dispositions.
func (s *Dispositions) Insert(_ context.Context, d policy.Disposition) error {
	return s.d.insert(d.Conversation, d)
}

// Get implements policy.Dispositions.
func (s *Dispositions) Get(_ context.Context, conversation string) (d policy.Disposition, err error) {
	d.Revision, err = s.d.get(conversation, &d)
	return d, err
}

// List implements policy.Dispositions.
func (s *Dispositions) List(ctx context.Context) (out []policy.Disposition, err error) {
	for _, k := range s.d.keys("", "~") {
		d, err := s.Get(ctx, k)
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// Replace implements policy.Dispositions.
func (s *Dispositions) Replace(_ context.Context, d policy.Disposition) error {
	return s.d.replace(d.Conversation, d.Revision, d)
}

// Delete implements policy.Dispositions.
func (s *Dispositions) Delete(_ context.Context, conversation string) error {
	s.d.remove(conversation)
	return nil
}

// Certify implements policy.Dispositions.
func (s *Dispositions) Certify(_ context.Context, c policy.Certificate) error {
	return s.certificates.insert(c.ID, c)
}

// Certificates implements policy.Dispositions.
func (s *Dispositions) Certificates(_ context.Context, from, to time.Time) (out []policy.Certificate, err error) {
	for _, k := range s.certificates.keys(from.UTC().Format("20060102"), to.UTC().Format("20060102")) {
		var c policy.Certificate
		if _, err := s.certificates.get(k, &c); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

type recordedEvent struct {
	Event string    `json:"event"`
	At    time.Time `json:"at"`
}

// RecordEvent implements policy.Dispositions.
func (s *Dispositions) RecordEvent(_ context.Context, conversation, event string, at time.Time) error {
	err := s.events.insert(conversation+"-"+event, recordedEvent{event, at.UTC()})
	if errors.Is(err, policy.ErrExists) {
		return nil
	}
	return err
}

// Events implements policy.Dispositions.
func (s *Dispositions) Events(_ context.Context, conversation string) (map[string]time.Time, error) {
	out := map[string]time.Time{}
	for _, k := range s.events.keys(conversation+"-", conversation+"-~") {
		var e recordedEvent
		if _, err := s.events.get(k, &e); err != nil {
			return nil, err
		}
		out[e.Event] = e.At
	}
	return out, nil
}

// Sweep implements policy.Dispositions.
func (s *Dispositions) Sweep(context.Context) (w policy.Sweep, err error) {
	if _, err = s.sweep.get("s", &w); errors.Is(err, policy.ErrNotFound) {
		err = nil
	}
	return w, err
}

// SaveSweep implements policy.Dispositions.
func (s *Dispositions) SaveSweep(_ context.Context, w policy.Sweep) error {
	s.sweep.mu.Lock()
	defer s.sweep.mu.Unlock()
	return s.sweep.put("s", w)
}
