package storetest

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"steno/shared/notification"
	"steno/shared/teams"
)

// Subscriptions is a register of change notifications. Its zero value is empty and ready.
type Subscriptions struct {
	mu            sync.Mutex
	subscriptions map[string]notification.Subscription
	asked         map[string]time.Time
	certificates  map[string]notification.Certificate
}

// Subscriptions implements notification.Register.
func (s *Subscriptions) Subscriptions(context.Context) ([]notification.Subscription, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []notification.Subscription
	for id, n := range s.subscriptions {
		n.Asked = s.asked[id]
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b notification.Subscription) int { return cmp.Compare(a.ID, b.ID) })
	return out, nil
}

// Save implements notification.Register.
func (s *Subscriptions) Save(_ context.Context, n notification.Subscription) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subscriptions == nil {
		s.subscriptions = map[string]notification.Subscription{}
	}
	s.subscriptions[n.ID] = n
	return nil
}

// Remove implements notification.Register.
func (s *Subscriptions) Remove(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscriptions, id)
	delete(s.asked, id)
	return nil
}

// Ask implements notification.Register.
func (s *Subscriptions) Ask(_ context.Context, id string, at time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked == nil {
		s.asked = map[string]time.Time{}
	}
	s.asked[id] = at
	return nil
}

// Certificates implements notification.Register.
func (s *Subscriptions) Certificates(context.Context) ([]notification.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.SortedFunc(maps.Values(s.certificates), func(a, b notification.Certificate) int { return cmp.Compare(a.ID, b.ID) }), nil
}

// SaveCertificate implements notification.Register.
func (s *Subscriptions) SaveCertificate(_ context.Context, c notification.Certificate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.certificates == nil {
		s.certificates = map[string]notification.Certificate{}
	}
	s.certificates[c.ID] = c
	return nil
}

// RemoveCertificate implements notification.Register.
func (s *Subscriptions) RemoveCertificate(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.certificates, id)
	return nil
}

// TestSubscriptions checks the contract of notification.Register.
func TestSubscriptions(t *testing.T, open func(t *testing.T) notification.Register) {
	now := time.Now().UTC().Truncate(time.Millisecond)
	t.Run("what was saved last is listed, and what was asked beside it", func(t *testing.T) {
		s := open(t)
		_, digest := notification.NewState()
		first := notification.Subscription{
			ID: guid(), Resource: notification.Resource{Source: teams.Chats, Custodian: newPerson()}, State: digest, Certificate: "c1",
			Expires: now.Add(time.Hour), Renewed: now,
		}
		second := notification.Subscription{ID: guid(), Resource: notification.Resource{Source: teams.Channels}, State: digest, Certificate: "c1", Expires: now, Renewed: now}
		ok(t, s.Ask(t.Context(), first.ID, now.Add(time.Minute)))
		ok(t, s.Save(t.Context(), first))
		ok(t, s.Save(t.Context(), second))
		first.Expires, first.Certificate = now.Add(2*time.Hour), "c2"
		ok(t, s.Save(t.Context(), first))
		first.Asked = now.Add(time.Minute)
		want := []notification.Subscription{first, second}
		slices.SortFunc(want, func(a, b notification.Subscription) int { return cmp.Compare(a.ID, b.ID) })
		got, err := s.Subscriptions(t.Context())
		ok(t, err)
		if !reflect.DeepEqual(got, want) {
			t.Errorf("listed %+v, want %+v", got, want)
		}
		for range 2 {
			ok(t, s.Remove(t.Context(), first.ID))
		}
		ok(t, s.Save(t.Context(), first))
		first.Asked = time.Time{} // went with it
		got, err = s.Subscriptions(t.Context())
		ok(t, err)
		if !slices.ContainsFunc(got, func(n notification.Subscription) bool { return reflect.DeepEqual(n, first) }) {
			t.Errorf("listed %+v, want %+v among them", got, first)
		}
	})
	t.Run("certificates are apart from subscriptions", func(t *testing.T) {
		s := open(t)
		c := notification.Certificate{ID: "c1", DER: []byte{0, 1, 2}, Made: now}
		ok(t, s.SaveCertificate(t.Context(), c))
		c.Unused = now.Add(time.Hour)
		ok(t, s.SaveCertificate(t.Context(), c))
		got, err := s.Certificates(t.Context())
		ok(t, err)
		if !reflect.DeepEqual(got, []notification.Certificate{c}) {
			t.Errorf("listed %+v, want %+v", got, c)
		}
		if subs, err := s.Subscriptions(t.Context()); err != nil || len(subs) != 0 {
			t.Errorf("%+v, %v", subs, err)
		}
		for range 2 {
			ok(t, s.RemoveCertificate(t.Context(), "c1"))
		}
		if got, err := s.Certificates(t.Context()); err != nil || len(got) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
