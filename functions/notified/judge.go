package notified

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"steno/functions/internal/keyring"
	"steno/shared/conversation"
	"steno/shared/notification"
	"steno/shared/teams"
)

var (
	errOutOfScope = errors.New("nobody's to keep")
	errPark       = errors.New("cannot be handled")
)

// judge decrypts an item and decides whose it is: errOutOfScope if nobody's who is recorded
// now, errPark if nothing can be made of it. The window returned has no bounds yet.
func (r *run) judge(ctx context.Context, i notification.Item) (conversation.Window, []byte, error) {
	w := conversation.Window{Tenant: r.config.Tenant, Pass: conversation.NotifiedPass}
	s, ok := r.subscriptions[i.Subscription]
	switch {
	case i.Tenant != r.config.Tenant:
		return w, nil, fmt.Errorf("%w: of another tenant", errPark)
	case !ok:
		return w, nil, errOutOfScope // it was ended since: whoever it was for is recorded no more
	case !s.Resource.Wide() && !r.recorded[s.Resource.Custodian]:
		return w, nil, errOutOfScope
	case s.Resource.Source == teams.Channels && !r.recorded[teamOf(i)]:
		return w, nil, errOutOfScope // the team stands in the open, so this one need not be decrypted
	}
	plain, err := r.decrypt(ctx, i)
	if err != nil {
		return w, nil, err
	}
	w.Source, w.Custodian = s.Resource.Source, s.Resource.Custodian
	switch {
	case s.Resource.Source == teams.Channels:
		w.Custodian = teamOf(i) // which Open compared with the message
	case s.Resource.Wide():
		if w.Custodian, err = r.custodianOf(ctx, plain); err != nil {
			return w, nil, err
		}
	}
	return w, plain, nil
}

func teamOf(i notification.Item) teams.PersonID {
	return teams.PersonID(strings.ToLower(i.Team()))
}

// decrypt opens an item's content.
func (r *run) decrypt(ctx context.Context, i notification.Item) ([]byte, error) {
	id, err := i.Certificate()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPark, notification.ErrContent)
	}
	key, err := r.s.Keys.Open(ctx, id, "notified")
	if errors.Is(err, keyring.ErrUnknown) {
		return nil, fmt.Errorf("%w: its certificate is not known any more", errPark)
	}
	if err != nil {
		return nil, err
	}
	plain, err := i.Open(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errPark, err)
	}
	return plain, nil
}

// custodianOf finds somebody recorded who has a message that came by a subscription to the
// whole tenant: its sender, one of the two of a 1:1 chat, or a custodian of its chat as far
// as the archive knows it. Who only reads in a chat that the archive has never seen is not
// found; the export brings it then.
func (r *run) custodianOf(ctx context.Context, plain []byte) (teams.PersonID, error) {
	m := conversation.ReadMessage(plain, "")
	if m.Unclear != nil {
		return "", errOutOfScope // a message of which nobody can tell whose it is
	}
	if id, err := teams.ParsePersonID(m.From.ID); err == nil && r.recorded[id] {
		return id, nil
	}
	if m.Thread.Kind() == teams.ThreadOneOnOne {
		for part := range strings.SplitSeq(strings.TrimSuffix(strings.TrimPrefix(string(m.Thread), "19:"), "@unq.gbl.spaces"), "_") {
			if id, err := teams.ParsePersonID(part); err == nil && r.recorded[id] {
				return id, nil
			}
		}
		return "", errOutOfScope
	}
	known, err := r.scope.of(ctx, m.Thread)
	if err != nil {
		return "", err
	}
	for _, id := range known {
		if r.recorded[id] {
			return id, nil
		}
	}
	return "", errOutOfScope
}

// scope remembers whose the threads are that the archive knows: a thread costs a query each
// quarter of an hour in which something is said in it.
type scope struct {
	catalog conversation.Catalog
	tenant  teams.TenantID
	known   map[conversation.ThreadKey]threadScope
}

type threadScope struct {
	custodians []teams.PersonID
	until      time.Time
}

const (
	scopeTTL   = 15 * time.Minute
	scopesKept = 10_000
)

func (s *scope) of(ctx context.Context, thread teams.ThreadID) ([]teams.PersonID, error) {
	key := conversation.KeyOf(s.tenant, thread)
	now := time.Now()
	if k, ok := s.known[key]; ok && now.Before(k.until) {
		return k.custodians, nil
	}
	page, err := s.catalog.ByThread(ctx, key, conversation.PageRequest{Limit: 1})
	if err != nil {
		return nil, fmt.Errorf("look up a thread: %w", err)
	}
	k := threadScope{until: now.Add(scopeTTL)}
	for _, c := range page.Conversations {
		k.custodians = append(k.custodians, c.Custodians...)
	}
	if len(s.known) >= scopesKept {
		clear(s.known)
	}
	s.known[key] = k
	return k.custodians, nil
}

// parkedItem is what is kept of an item that cannot be handled: what it named, and a digest
// of its content. The content itself is in the export, if it is anybody's at all.
type parkedItem struct {
	Subscription string `json:"subscription"`
	Change       string `json:"change"`
	Resource     string `json:"resource"`
	Content      string `json:"contentSha256"`
}

func (r *run) parkItem(ctx context.Context, i notification.Item, cause error) error {
	sum := sha256.Sum256(i.Content)
	body, err := json.Marshal(parkedItem{i.Subscription, i.Change, i.Resource, hex.EncodeToString(sum[:])})
	if err != nil {
		return fmt.Errorf("park notification: %w", err)
	}
	return r.park(ctx, cause.Error(), hex.EncodeToString(sum[:16]), body)
}

// park keeps aside and raises the alarm.
func (r *run) park(ctx context.Context, reason, id string, body []byte) error {
	r.log.ErrorContext(ctx, "notification parked", slog.String("alarm", "notification"), slog.String("cause", reason))
	if err := r.s.Park(ctx, reason, id, body); err != nil {
		return fmt.Errorf("park notification: %w", err)
	}
	return nil
}
