package intake_test

import (
	"bytes"
	"errors"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/policy"
	"steno/shared/teams"
	"steno/tests/sim"
)

type versionID struct{ thread, message, etag string }

// stored is a version as it lies in the archive.
type stored struct {
	raw  []byte
	lane conversation.MessageLane
}

func idOf(v sim.Version) versionID { return versionID{string(v.Thread), v.MessageID, v.ETag} }

// compare holds the archive against the tenant's whole history.
func (c *campaign) compare() tally {
	c.t.Helper()
	truth := map[versionID]sim.Version{}
	for _, v := range c.tenant.History() {
		truth[idOf(v)] = v
	}
	have := c.archive()
	c.tally.Versions, c.tally.Archived, c.tally.Windows = len(truth), len(have), len(c.readings)
	for id, copies := range have {
		v, known := truth[id]
		want := v.Bytes
		if known && copies[0].lane == conversation.LaneNotified {
			want = c.early.sent[id]
		}
		switch {
		case !known:
			c.t.Errorf("seed %d: the archive has a version that nobody wrote: %v", c.seed, id)
		case len(copies) != 1:
			c.t.Errorf("seed %d: %v is stored %d times", c.seed, id, len(copies))
		case !bytes.Equal(copies[0].raw, want):
			c.t.Errorf("seed %d: %v is not what Graph sent", c.seed, id)
		case !c.inScope(v):
			c.t.Errorf("seed %d: %v is nobody's who was recorded then", c.seed, id)
		}
	}
	for id, v := range truth {
		if !c.inScope(v) {
			continue
		}
		switch _, archived := have[id]; {
		case c.expected(v):
			c.tally.Expected++
			if c.early.kept[id] {
				c.tally.Notified++
			}
			if !archived {
				c.t.Errorf("seed %d: %v stood from %s to %s and is missing", c.seed, id, v.CurrentFrom, v.CurrentTo)
			}
		case c.early.kept[id]:
			c.tally.Expected, c.tally.Notified, c.tally.ByNoticeAlone = c.tally.Expected+1, c.tally.Notified+1, c.tally.ByNoticeAlone+1
			if !archived {
				c.t.Errorf("seed %d: %v was notified and is missing", c.seed, id)
			}
		case !archived:
			c.tally.Unobservable++
		}
	}
	return c.tally
}

// inScope reports whether somebody who has the version in the mailbox was recorded when it was
// made, or within the history before.
func (c *campaign) inScope(v sim.Version) bool {
	if v.Channel {
		return false
	}
	for _, p := range v.Participants {
		periods, err := c.roster.PeriodsOf(c.t.Context(), teams.PersonID(p))
		c.must(err)
		for i := range periods {
			periods[i].From = periods[i].From.Add(-history)
		}
		if len(policy.Covered(periods, v.LastModified, v.LastModified.Add(time.Millisecond))) > 0 {
			return true
		}
	}
	return false
}

// expected reports whether an export read the version's moment while it stood. The tenant's
// clock stands still while a window is read; what was edited meanwhile stood no more.
func (c *campaign) expected(v sim.Version) bool {
	for _, r := range c.readings {
		read := r.From.Before(v.LastModified) && v.LastModified.Before(r.To)
		stood := !v.CurrentFrom.After(r.at) && (v.CurrentTo.IsZero() || v.CurrentTo.After(r.at))
		if !read || !stood {
			continue
		}
		for _, p := range v.Participants {
			if teams.PersonID(p) == r.Custodian {
				return true
			}
		}
	}
	return false
}

// archive reads everything back through evidence.
func (c *campaign) archive() map[versionID][]stored {
	c.t.Helper()
	store := c.store(&c.blobs)
	out := map[versionID][]stored{}
	blobs := map[string]bool{}
	for _, s := range c.catalog.All() {
		for _, o := range s.Objects {
			receipt, err := custody.Log{Trail: &c.trail}.Append(c.t.Context(), custody.Event{Tenant: c.id, Action: custody.SystemRead, System: "campaign", Item: string(s.Conversation.ID)})
			c.must(err)
			obj, err := store.Open(c.t.Context(), evidence.Ref{Tenant: c.id, Unit: string(s.Conversation.ID), Object: o.Name}, receipt)
			if errors.Is(err, evidence.ErrNotFound) {
				// A process claimed the version and died, and the version stood no more when another
				// came: it is missing if any export read it after that.
				c.tally.Unkept++
				continue
			}
			c.must(err)
			plain, err := obj.ReadAll(1 << 30)
			c.must(err)
			h, items, err := conversation.DecodeBatch(plain)
			c.must(err)
			for _, raw := range items {
				m := conversation.ReadMessage(raw, h.Custodian)
				id := versionID{string(m.Thread), string(m.VersionKey.Message), string(m.ETag)}
				out[id] = append(out[id], stored{raw, h.Lane})
			}
			blobs[string(c.id)+"/"+string(s.Conversation.ID)+"/"+o.Name] = true
		}
	}
	for _, name := range c.blobs.Names() {
		if !blobs[name] {
			c.t.Errorf("seed %d: a blob that no conversation knows: %s", c.seed, name)
		}
	}
	return out
}
