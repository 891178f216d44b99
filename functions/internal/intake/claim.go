package intake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

// stored is what storing the messages of one conversation came to.
type stored struct {
	facts conversation.Conversation
	added int                    // versions
	held  []conversation.Message // those that the custodian's own objects hold
	bound []custody.Object       // what the log is to bind
}

// storeConversation makes sure that every message version is in evidence. first tells a
// first pass.
func (in *Intake) storeConversation(ctx context.Context, first bool, h conversation.BatchHeader, messages []conversation.Message) (stored, error) {
	var out stored
	bytesOf := make(map[conversation.VersionKey]conversation.Message, len(messages))
	for _, m := range messages {
		bytesOf[m.VersionKey] = m
	}
	for try := range conflicts {
		// Most conversations of a first pass are new, and a claim in a new one needs no
		// reading: if the guess is wrong the claim fails and costs what it hoped to save.
		var slice conversation.Slice
		if try > 0 || !first || in.met(h.Conversation) {
			var err error
			if slice, err = in.catalog.Slice(ctx, h.Conversation); err != nil {
				return out, err
			}
		}
		if slice.Conversation.Disposed != nil {
			// What was erased must not come back by the next pass over the same stretch.
			in.log.WarnContext(ctx, "versions of a disposed conversation left out", slog.String("conversation", string(h.Conversation)), slog.Int("versions", len(messages)))
			return out, nil
		}
		dropped, completed, err := in.settle(ctx, h, slice, bytesOf)
		if err != nil {
			return out, err
		}
		out.bound = append(out.bound, completed...)
		claim, fresh := in.claim(h, slice, messages, dropped)
		if claim == nil {
			out.facts, out.held = slice.Conversation, heldBy(h.Custodian, slice, messages)
			return out, nil
		}
		err = in.catalog.Claim(ctx, slice, *claim)
		if errors.Is(err, conversation.ErrConflict) {
			continue
		}
		if err != nil {
			return out, err
		}
		out.facts, out.added = claim.Conversation, len(fresh)
		out.held = append(heldBy(h.Custodian, slice, messages), fresh...)
		for _, o := range slice.Objects {
			if slices.Contains(dropped, o.Name) {
				out.bound = append(out.bound, custody.Object{Unit: string(h.Conversation), Object: o.Name, Seq: o.Seq, Void: true})
			}
		}
		if claim.Add != nil {
			b, err := in.put(ctx, h, *claim.Add, fresh)
			if err != nil {
				return out, err
			}
			out.bound = append(out.bound, b...)
		}
		return out, nil
	}
	return out, fmt.Errorf("%w: the slice kept changing", ErrLater)
}

// heldBy returns the messages that stand in objects of the custodian.
func heldBy(custodian teams.PersonID, s conversation.Slice, messages []conversation.Message) []conversation.Message {
	var out []conversation.Message
	for _, m := range messages {
		if o, held := s.Holds(m.VersionKey); held && o.Custodian == custodian {
			out = append(out, m)
		}
	}
	return out
}

// settle makes sure that each object which promises a version of ours is stored:
// it is, or it is put now from the same bytes and returned to be bound, or its claim has
// expired and is returned to be dropped. Otherwise somebody is still at it: ErrLater.
func (in *Intake) settle(ctx context.Context, h conversation.BatchHeader, s conversation.Slice, ours map[conversation.VersionKey]conversation.Message) (dropped []string, completed []custody.Object, err error) {
	for _, o := range s.Objects {
		if !slices.ContainsFunc(o.Versions, func(v conversation.Version) bool { _, ok := ours[v.VersionKey]; return ok }) {
			continue
		}
		exists, err := in.exists(ctx, h, o.Name)
		if err != nil {
			return nil, nil, err
		}
		if exists {
			continue
		}
		if same := sameBytes(o, ours); same != nil {
			b, err := in.put(ctx, h, o, same)
			if err != nil {
				return nil, nil, err
			}
			completed = append(completed, b...)
			continue
		}
		if time.Since(o.ClaimedAt) < in.config.ClaimLease {
			return nil, nil, ErrLater
		}
		dropped = append(dropped, o.Name)
	}
	return dropped, completed, nil
}

// sameBytes returns the messages of an object in its order if we hold every one of
// them byte for byte, else nil.
func sameBytes(o conversation.Object, ours map[conversation.VersionKey]conversation.Message) []conversation.Message {
	out := make([]conversation.Message, 0, len(o.Versions))
	for _, v := range o.Versions {
		m, ok := ours[v.VersionKey]
		if !ok || sha256.Sum256(m.Raw) != v.SHA256 {
			return nil
		}
		out = append(out, m)
	}
	return out
}

// claim works out what to change in a slice: the versions nobody has are claimed
// under a new object, those somebody else has are received. nil means nothing to do.
func (in *Intake) claim(h conversation.BatchHeader, s conversation.Slice, messages []conversation.Message, dropped []string) (*conversation.Claim, []conversation.Message) {
	s.Objects = slices.DeleteFunc(slices.Clone(s.Objects), func(o conversation.Object) bool { return slices.Contains(dropped, o.Name) })
	var fresh []conversation.Message
	var received []conversation.VersionKey
	for _, m := range messages {
		o, held := s.Holds(m.VersionKey)
		switch {
		case !held:
			fresh = append(fresh, m)
		case o.Custodian != h.Custodian && !s.Received(h.Custodian, m.VersionKey),
			h.Lane != conversation.LaneNotified && !s.Confirmed(m.VersionKey):
			received = append(received, m.VersionKey)
		}
	}
	if len(fresh) == 0 && len(received) == 0 && len(dropped) == 0 {
		return nil, nil
	}
	c := &conversation.Claim{Conversation: s.Conversation.With(h, fresh), Drop: dropped}
	now := time.Now().UTC()
	if len(fresh) > 0 {
		c.Add = &conversation.Object{Name: evidence.NewObjectID(), Custodian: h.Custodian, Lane: h.Lane, ClaimedAt: now, Seq: s.Conversation.Objects}
		c.Conversation.Objects++
		for _, m := range fresh {
			c.Add.Versions = append(c.Add.Versions, conversation.Version{
				VersionKey: m.VersionKey, Sent: m.Sent, SHA256: sha256.Sum256(m.Raw),
			})
		}
	}
	if len(received) > 0 {
		c.Receipt = &conversation.Receipt{Custodian: h.Custodian, Lane: h.Lane, Window: h.Window, Versions: received, At: now}
	}
	return c, fresh
}

func refOf(h conversation.BatchHeader, object string) evidence.Ref {
	return evidence.Ref{Tenant: h.Tenant, Unit: string(h.Conversation), Object: object}
}

// put stores the messages under a claimed name and returns what the log is to bind.
// Whoever fills the name first has the same messages, because the claim lists their
// digests; what stands there is bound by whoever sealed it, since each sealing gives other
// bytes.
func (in *Intake) put(ctx context.Context, h conversation.BatchHeader, o conversation.Object, messages []conversation.Message) ([]custody.Object, error) {
	plain, err := conversation.EncodeBatch(h, messages)
	if err != nil {
		return nil, err
	}
	return in.fill(ctx, h, o, plain)
}

// fill stores plain bytes under a claimed name and returns what the log is to bind.
func (in *Intake) fill(ctx context.Context, h conversation.BatchHeader, o conversation.Object, plain []byte) ([]custody.Object, error) {
	sealed, err := in.store.Seal(ctx, refOf(h, o.Name), plain)
	if err != nil {
		return nil, err
	}
	if sealed.Until, err = in.until(ctx, h); err != nil {
		return nil, err
	}
	switch err := in.store.Put(ctx, sealed); {
	case errors.Is(err, evidence.ErrExists):
		// Ours after all, if the first answer was lost and the request repeated.
		_, digest, err := in.store.Digest(ctx, sealed.Ref)
		if err != nil {
			return nil, err
		}
		if digest != sealed.Ciphertext {
			in.remember(o.Name)
			return nil, nil
		}
	case err != nil:
		return nil, err
	}
	in.remember(o.Name)
	return []custody.Object{{
		Unit: string(h.Conversation), Object: o.Name, Seq: o.Seq,
		SHA256: hex.EncodeToString(sealed.Ciphertext[:]), Commit: hex.EncodeToString(sealed.Commit[:]),
	}}, nil
}

func (in *Intake) exists(ctx context.Context, h conversation.BatchHeader, object string) (bool, error) {
	in.mu.Lock()
	known := in.stored[object]
	in.mu.Unlock()
	if known {
		return true, nil
	}
	ok, err := in.store.Exists(ctx, refOf(h, object))
	if ok {
		in.remember(object)
	}
	return ok, err
}

// maxStored bounds the cache of objects known to be stored (some 80 bytes each).
const maxStored = 10_000

func (in *Intake) remember(object string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if len(in.stored) >= maxStored {
		clear(in.stored)
	}
	in.stored[object] = true
}

// met reports whether this process has stored anything of the conversation lately, and
// takes note of it.
func (in *Intake) met(id conversation.ID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.conversations[id] {
		return true
	}
	if len(in.conversations) >= maxStored {
		clear(in.conversations)
	}
	in.conversations[id] = true
	return false
}
