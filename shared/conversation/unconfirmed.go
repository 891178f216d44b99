package conversation

import (
	"slices"
	"strconv"
	"time"

	"steno/shared/teams"
)

// Unconfirmed is a version that a notification brought and no export has returned.
type Unconfirmed struct {
	VersionKey
	Since time.Time // when it was claimed
	// Superseded says that an export returned a later version of the message. That explains
	// it: an export shows only what stands when it is made. Without that the mailbox does not
	// have the message as it was notified, and somebody must look.
	Superseded bool
}

// Unconfirmed lists the versions that only notifications brought, and that were claimed
// before a time by which exports should have shown them, in the order of the objects.
func (s Slice) Unconfirmed(before time.Time) []Unconfirmed {
	var out []Unconfirmed
	for _, o := range s.Objects {
		if o.Lane != LaneNotified || !o.ClaimedAt.Before(before) {
			continue
		}
		for _, v := range o.Versions {
			if !s.Confirmed(v.VersionKey) {
				out = append(out, Unconfirmed{v.VersionKey, o.ClaimedAt, s.superseded(v.VersionKey, o)})
			}
		}
	}
	return out
}

// superseded reports whether an export returned a later version of the message than k, which
// stands in object of.
func (s Slice) superseded(k VersionKey, of Object) bool {
	return slices.ContainsFunc(s.Objects, func(o Object) bool {
		return slices.ContainsFunc(o.Versions, func(v Version) bool {
			return v.Message == k.Message && v.ETag != k.ETag && later(v.ETag, k.ETag, o.Seq > of.Seq) && s.Confirmed(v.VersionKey)
		})
	})
}

// later compares etags of one message. They are the time of the change in milliseconds as far
// as anybody has seen; where they are not, the order of capture decides.
func later(a, b teams.ETag, captured bool) bool {
	x, err1 := strconv.ParseUint(string(a), 10, 64)
	y, err2 := strconv.ParseUint(string(b), 10, 64)
	if err1 != nil || err2 != nil {
		return captured
	}
	return x > y
}
