package finalize

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
	"steno/shared/media"
	"steno/shared/teams"
)

// leg is the sealing of one leg under way.
type leg struct {
	*Finalizer
	n          conversation.LegNotice
	manifest   conversation.Manifest
	meters     map[conversation.TrackID]*trackMeter
	placed     map[string]placed // bundles by object, in packs that verify
	held       *evidence.Packed  // the pack in memory
	heldObject string
	faults     []string
	receipt    custody.Receipt
	until      time.Time
	keep       time.Time // Retain Until of what is stored
}

// seal verifies all of a leg, seals its manifest and closes it in the register.
func (f *Finalizer) seal(ctx context.Context, n conversation.LegNotice, abandoned bool) error {
	l := &leg{Finalizer: f, n: n, meters: map[conversation.TrackID]*trackMeter{}, placed: map[string]placed{}}
	var err error
	if l.keep, err = f.keepUntil(ctx, n); err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	if err := l.gather(ctx); err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	m := &l.manifest
	if m.Leg == "" { // nothing was ever stored of it
		m.Format, m.Tenant, m.Leg, m.Call, m.Chain, m.Recorder = conversation.ManifestFormat, n.Tenant, n.Leg, n.Call, n.Chain, n.Recorder
	}
	if m.Invite == nil {
		m.Invite = n.Invite
	}
	n.Invite = m.Invite
	m.Close(n.Bundles)
	l.judge(abandoned)
	if err := l.resolve(ctx); err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	peaks, err := l.putPeaks(ctx)
	if err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	plain, err := conversation.EncodeManifest(*m)
	if err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	object := conversation.ManifestObject(n.Leg)
	if err := l.put(ctx, object, plain); err != nil {
		return fmt.Errorf("seal manifest of leg %s: %w", n.Leg, err)
	}
	if err := l.attest(ctx, object); err != nil {
		return fmt.Errorf("seal manifest of leg %s: %w", n.Leg, err)
	}
	subject, err := l.subject(ctx)
	if err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	previous, err := l.previous(ctx)
	if err != nil {
		return fmt.Errorf("seal leg %s: %w", n.Leg, err)
	}
	err = f.update(ctx, n, func(conv *conversation.Conversation, leg *conversation.Leg, _ *conversation.Call) {
		leg.State, leg.Outcome, leg.Reason = conversation.LegSealed, m.Outcome, m.Reason
		leg.Epoch, leg.Bundles, leg.Packs, leg.Manifest, leg.Peaks = m.Epoch, len(m.Bundles), len(m.Packs), object, peaks
		leg.From, leg.To = m.Span()
		leg.Lost = m.Lost()
		people, numbers := participants(*m)
		conv.Participants = mergeParticipants(conv.Participants, people)
		for _, x := range numbers {
			if !slices.Contains(conv.Call.Numbers, x) {
				conv.Call.Numbers = append(conv.Call.Numbers, x)
			}
		}
		if mod := modality(*m); conv.Modality == conversation.Voice {
			conv.Modality = mod
		}
		if subject != "" {
			conv.Call.Subject = subject
		}
		if conv.Call.Previous == "" {
			conv.Call.Previous = previous
		}
		conv.Call.Direction = direction(f.c.Tenant, *m)
	})
	if err != nil {
		return fmt.Errorf("register leg %s: %w", n.Leg, err)
	}
	for _, reason := range l.faults {
		f.log.ErrorContext(ctx, "evidence damaged", slog.String("leg", string(n.Leg)), slog.String("reason", reason))
	}
	if m.Outcome == conversation.OutcomeLost {
		// The alarm: operators match on this line.
		f.log.ErrorContext(ctx, "recording lost", slog.String("leg", string(n.Leg)), slog.String("call", string(n.Call)),
			slog.String("reason", m.Reason), slog.Duration("lost", m.Lost()))
	}
	return l.dropPacked(ctx)
}

// judge settles the outcome: what the recorder said, unless what is stored says worse.
func (l *leg) judge(abandoned bool) {
	m := &l.manifest
	m.Reason = l.n.Reason
	if m.Outcome == "" {
		m.Outcome = l.n.Outcome
	}
	_, end := m.Span()
	switch {
	case abandoned && end.IsZero() && len(m.Bundles) == 0:
		m.Outcome = conversation.OutcomeLost
	case l.n.Outcome == conversation.OutcomeLost:
		m.Outcome = conversation.OutcomeLost
	case m.Outcome == conversation.OutcomeRecorded && end.IsZero():
		m.Outcome = conversation.OutcomeEmpty
	}
	for _, e := range m.Events {
		if e.Kind == conversation.EventFault && m.Reason == "" {
			m.Reason = e.Reason
		}
	}
	if l.incomplete() && m.Outcome == conversation.OutcomeRecorded {
		m.Outcome = conversation.OutcomeLost
	}
}

// incomplete reports whether a stretch of the leg is in no bundle.
func (l *leg) incomplete() bool {
	have := map[int]bool{}
	for _, b := range l.manifest.Bundles {
		have[b.Seq] = true
	}
	for seq := range have {
		if seq > 0 && !have[seq-1] {
			return true
		}
	}
	return len(have) < l.n.Bundles
}

// ref names an object of the leg.
func (l *leg) ref(object string) evidence.Ref {
	return evidence.Ref{Tenant: l.n.Tenant, Unit: string(l.n.Leg), Object: object}
}

// open returns a receipt that is good for a while yet: sealing a long leg takes longer
// than one lasts.
func (l *leg) open(ctx context.Context) (custody.Receipt, error) {
	if now := l.c.Now(); !now.Before(l.until) {
		r, err := l.trail.Append(ctx, custody.Event{
			Tenant: l.n.Tenant, Action: custody.SystemRead, System: "finalize", Item: string(l.n.Leg), Reason: "verify and seal",
		})
		if err != nil {
			return custody.Receipt{}, err
		}
		l.receipt, l.until = r, now.Add(custody.Lifetime/2)
	}
	return l.receipt, nil
}

// gather reads every bundle of the leg, in the order of time: from its packs, and from
// the tails that no good pack holds, which it packs first.
func (l *leg) gather(ctx context.Context) error {
	for n := 0; ; n++ {
		object := conversation.PackObject(l.n.Leg, n)
		err := l.takePack(ctx, object)
		switch {
		case errors.Is(err, evidence.ErrNotFound) && n >= l.n.Packs:
			if err := l.packTails(ctx, n); err != nil {
				return err
			}
			return l.readBundles(ctx)
		case errors.Is(err, evidence.ErrNotFound):
			l.fault(fmt.Sprintf("pack %d is missing", n))
		case errors.Is(err, evidence.ErrCorrupt), errors.Is(err, evidence.ErrFormat):
			l.fault(fmt.Sprintf("pack %d is corrupt", n))
		case err != nil:
			return err
		}
	}
}

// fault notes that evidence is not as it was stored. That is an incident, also where
// nothing is lost by it.
func (l *leg) fault(reason string) {
	l.faults = append(l.faults, reason)
	l.manifest.Events = append(l.manifest.Events, conversation.LegEvent{At: l.c.Now().UTC(), Kind: conversation.EventFault, Reason: reason})
}

// takePack verifies a pack and notes what is in it.
func (l *leg) takePack(ctx context.Context, object string) error {
	p, err := l.hold(ctx, object)
	if err != nil {
		return err
	}
	size, digest, err := p.Digest(ctx)
	if err != nil {
		return err
	}
	l.manifest.Packs = append(l.manifest.Packs, conversation.PackEntry{Object: object, Size: size, SHA256: hex.EncodeToString(digest[:])})
	for _, m := range p.Members {
		if err := p.Verify(ctx, m.Object); errors.Is(err, evidence.ErrCorrupt) {
			l.fault("a bundle in pack " + object + " does not verify")
			continue // there may be a tail of it
		} else if err != nil {
			return err
		}
		l.placed[m.Object] = placed{pack: len(l.manifest.Packs) - 1, sha256: m.SHA256}
	}
	return nil
}

// placed is where a verified bundle lies.
type placed struct {
	pack   int
	sha256 [sha256.Size]byte
}

// hold opens a pack and keeps it in memory, in place of the one before.
func (l *leg) hold(ctx context.Context, object string) (*evidence.Packed, error) {
	receipt, err := l.open(ctx)
	if err != nil {
		return nil, err
	}
	if l.held != nil && l.heldObject == object {
		return l.held, nil
	}
	p, err := l.evidence.OpenPack(ctx, l.ref(object), receipt)
	if err != nil {
		return nil, err
	}
	if _, _, err := p.Digest(ctx); err != nil {
		return nil, err
	}
	l.held, l.heldObject = p, object
	return p, nil
}

// readBundles takes the verified bundles into the manifest, in order.
func (l *leg) readBundles(ctx context.Context) error {
	left := len(l.placed)
	for seq := 0; left > 0 && seq < maxBundles; seq++ {
		whole := false
		for part := 0; part <= conversation.MaxParts; part++ {
			object := conversation.BundleObject(l.n.Leg, seq, part)
			at, ok := l.placed[object]
			if !ok {
				continue
			}
			left--
			if whole {
				continue // the bundle came after all, and says what its parts say
			}
			if err := l.readBundle(ctx, object, at); err != nil {
				return err
			}
			whole = part == 0
		}
	}
	if left > 0 {
		l.fault(fmt.Sprintf("%d objects are no bundles of this leg", left))
	}
	return nil
}

func (l *leg) readBundle(ctx context.Context, object string, at placed) error {
	p, err := l.hold(ctx, l.manifest.Packs[at.pack].Object)
	if err != nil {
		return err
	}
	o, err := p.Open(ctx, object)
	if err == nil {
		err = l.add(o, conversation.BundleEntry{Object: object, Pack: at.pack, SHA256: hex.EncodeToString(at.sha256[:])})
	}
	if errors.Is(err, evidence.ErrCorrupt) || errors.Is(err, media.ErrBundle) || errors.Is(err, errOrder) {
		l.fault("a bundle does not open: " + object)
		return nil // its time shows as missing
	}
	return err
}

var errOrder = errors.New("bundle out of order")

// add reads one bundle whole and takes it into the manifest.
func (l *leg) add(o *evidence.Object, e conversation.BundleEntry) error {
	plain, err := o.ReadAll(media.MaxBundle)
	if err != nil {
		return err
	}
	h, body, err := media.DecodeBundle(plain)
	if err != nil {
		return err
	}
	e.Body = int64(len(plain) - len(body))
	digest := sha256.Sum256(plain)
	e.Plain = hex.EncodeToString(digest[:])
	if h.Leg != l.n.Leg || conversation.BundleObject(h.Leg, h.Seq, h.Part) != e.Object {
		return fmt.Errorf("%w: the bundle is not the one its name says", media.ErrBundle)
	}
	for _, s := range h.Segments {
		if s.Samples == 0 {
			continue
		}
		frag, err := media.ParseFragment(body[s.Data.Off : s.Data.Off+s.Data.Len])
		if err != nil {
			return fmt.Errorf("%w: segment of %s: %w", media.ErrBundle, s.Track, err)
		}
		if len(frag.Samples) != s.Samples {
			return fmt.Errorf("%w: segment of %s has %d samples, the header says %d", media.ErrBundle, s.Track, len(frag.Samples), s.Samples)
		}
		if s.Kind == conversation.AudioTrack {
			if err := l.meter(s, frag); err != nil {
				return err
			}
		}
	}
	if err := l.manifest.Add(h, e); err != nil {
		return fmt.Errorf("%w: %w", errOrder, err)
	}
	return nil
}

// put seals and stores a derived object under a fixed name. A name that is filled was
// filled by an earlier try, which said the same.
func (l *leg) put(ctx context.Context, object string, plain []byte) error {
	s, err := l.evidence.Seal(ctx, l.ref(object), plain)
	if err != nil {
		return err
	}
	s.Until = l.keep
	if err := l.evidence.Put(ctx, s); err != nil && !errors.Is(err, evidence.ErrExists) {
		return err
	}
	return nil
}

// attest puts the digest of the stored manifest into the custody trail, and so into its log:
// the manifest holds those of all packs, so that nothing of the leg can be changed or
// exchanged later without showing. The digest is of what storage gives back, not of what
// was sent. A try that dies behind it leaves the same event twice.
func (l *leg) attest(ctx context.Context, object string) error {
	_, digest, err := l.evidence.Digest(ctx, l.ref(object))
	if err != nil {
		return err
	}
	commit, err := l.commitment(ctx, object)
	if err != nil {
		return err
	}
	_, err = l.trail.Append(ctx, custody.Event{
		Tenant: l.n.Tenant, Action: custody.Sealed, System: "finalize", Item: string(l.n.Leg),
		Objects: []custody.Object{{Unit: string(l.n.Leg), Object: object, SHA256: hex.EncodeToString(digest[:]), Commit: hex.EncodeToString(commit[:])}},
	})
	return err
}

// commitment binds the plain bytes of what is stored under the name, which an earlier try
// may have sealed.
func (l *leg) commitment(ctx context.Context, object string) (c [sha256.Size]byte, err error) {
	receipt, err := l.open(ctx)
	if err != nil {
		return c, err
	}
	o, err := l.evidence.Open(ctx, l.ref(object), receipt)
	if err != nil {
		return c, err
	}
	plain, err := o.ReadAll(evidence.MaxSealed)
	if err != nil {
		return c, err
	}
	return evidence.Commitment(o.Blind(), sha256.Sum256(plain)), nil
}

// resolve names the people of the tenant who took part.
func (l *leg) resolve(ctx context.Context) error {
	for i := range l.manifest.Parties {
		p := &l.manifest.Parties[i]
		id, ok := p.Person(l.n.Tenant)
		if !ok || p.Name != "" {
			continue
		}
		u, err := l.people.User(ctx, id)
		if err != nil && !gone(err) {
			return err
		}
		p.Name = u.DisplayName
	}
	return nil
}

// gone reports whether the directory answered that it has no such item.
func gone(err error) bool {
	var g interface{ Gone() bool }
	return errors.As(err, &g) && g.Gone()
}

// subject is the meeting's subject: what the invite said, or the topic of its chat.
func (l *leg) subject(ctx context.Context) (string, error) {
	in := l.manifest.Invite
	if in == nil || in.Subject != "" || in.Thread == "" {
		if in == nil {
			return "", nil
		}
		return in.Subject, nil
	}
	topic, err := l.people.ChatTopic(ctx, in.Thread)
	if err != nil && !gone(err) {
		return "", err
	}
	return topic, nil
}

// transferWindow is how far apart the end of a transferred call and the start of the
// next may lie.
const transferWindow = 2 * time.Minute

// previous finds the call that was transferred into this one: a transfer has a chain of
// its own, so the transferor and the time are all there is to go by.
func (l *leg) previous(ctx context.Context) (conversation.ID, error) {
	in := l.manifest.Invite
	if in == nil || in.Transferor == nil {
		return "", nil
	}
	var seek []teams.PersonID
	for _, p := range []teams.Party{*in.Transferor, in.Recorded.Party} {
		if id, ok := p.Person(l.n.Tenant); ok {
			seek = append(seek, id)
		}
	}
	var best conversation.Conversation
	for _, id := range seek {
		page, err := l.calls.ByPerson(ctx, id, in.At.Add(-24*time.Hour), in.At, conversation.PageRequest{})
		if err != nil {
			return "", err
		}
		for _, c := range page.Conversations {
			if c.Call == nil || c.Call.Chain == l.n.Chain || c.Last.Before(in.At.Add(-transferWindow)) && !c.Call.Running {
				continue
			}
			if best.ID == "" || c.Start.After(best.Start) {
				best = c
			}
		}
	}
	return best.ID, nil
}
