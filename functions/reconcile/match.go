package reconcile

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"steno/shared/custody"
	"steno/shared/evidence"
)

// receipt is what a custody event allowed to be opened.
type receipt struct {
	id, unit string
	at       time.Time
	used     int // unwraps that are put down to it
	most     int // keys that its unit has; -1 until it was asked for
}

// until is when the last unwrap may be that it explains.
func (r *receipt) until() time.Time { return r.at.Add(custody.Lifetime + Slack) }

// opens are the actions whose receipts open evidence; see custody.Receipt.Covers.
var opens = []custody.Action{custody.Read, custody.Played, custody.Exported, custody.SystemRead}

// receipts lists those that may explain an unwrap in [from, to), oldest first, with what
// earlier steps put down to them.
func (p *pass) receipts(ctx context.Context, from, to time.Time) ([]*receipt, error) {
	var out []*receipt
	err := p.each(ctx, from.Add(-custody.Lifetime-Slack), to.Add(Slack), func(rec custody.Record) {
		if rec.Tenant == p.c.Tenant && slices.Contains(opens, rec.Action) {
			out = append(out, &receipt{id: rec.ID, unit: rec.Item, at: rec.At, used: p.state.Used[rec.ID], most: -1})
		}
	})
	return out, err
}

// within counts the receipts of a time.
func within(receipts []*receipt, from, to time.Time) (n int) {
	for _, r := range receipts {
		if !r.at.Before(from) && r.at.Before(to) {
			n++
		}
	}
	return n
}

// each calls f for the records of a time, oldest first.
func (p *pass) each(ctx context.Context, from, to time.Time, f func(custody.Record)) error {
	const page = 1000
	seen := map[string]bool{} // of the time at which the last page ended
	for {
		records, err := p.s.Trail.Trail.Range(ctx, from, to, page+len(seen))
		if err != nil {
			return err
		}
		for _, r := range records {
			if !seen[r.ID] {
				f(r)
			}
		}
		if len(records) < page+len(seen) {
			return nil
		}
		last := records[len(records)-1].At.Truncate(time.Microsecond)
		if !last.Equal(from) {
			clear(seen)
		}
		from = last
		for _, r := range records {
			if !r.At.Before(last) {
				seen[r.ID] = true
			}
		}
	}
}

// explain puts each unwrap down to a receipt and returns those for which there is none.
//
// All receipts last equally long, so the oldest that is alive is the one that ends first; to
// take it leaves the most for those that follow, and what is left over then is the least there
// can be.
func (p *pass) explain(ctx context.Context, uses []evidence.VaultUse, receipts []*receipt) (surplus []evidence.VaultUse, err error) {
	first := 0
	for _, u := range uses {
		if len(p.c.Callers) > 0 && !slices.ContainsFunc(p.c.Callers, func(c string) bool { return strings.EqualFold(c, u.Caller) }) || u.Operation != "KeyUnwrap" {
			surplus = append(surplus, u) // nobody of ours did that, or with that operation
			continue
		}
		for first < len(receipts) && (receipts[first].until().Before(u.At) || receipts[first].most == receipts[first].used) {
			first++
		}
		found := false
		for _, r := range receipts[first:] {
			if r.at.Add(-Slack).After(u.At) {
				break
			}
			if r.most < 0 {
				if r.most, err = p.keysOf(ctx, r.unit); err != nil {
					return nil, err
				}
			}
			if found = r.used < r.most; found {
				r.used++
				break
			}
		}
		if !found {
			surplus = append(surplus, u)
		}
	}
	return surplus, nil
}

// keysOf is how many keys a unit has, or had when it was disposed.
func (p *pass) keysOf(ctx context.Context, unit string) (int, error) {
	if n, ok := p.capacity[unit]; ok {
		return n, nil
	}
	keys, err := p.s.Keys.List(ctx, p.c.Tenant, unit)
	if err != nil {
		return 0, err
	}
	n := len(keys)
	if n == 0 {
		if n, err = p.keysDestroyed(ctx, unit); err != nil {
			return 0, err
		}
	}
	p.capacity[unit] = n
	return n, nil
}

// Of export packages it is not on record how many keys they had, but that they are gone. A
// build draws a key every five minutes, and lasts some hours at most.
const (
	packageUnit = "export-"
	packageKeys = 100
)

// disposal is that of a conversation, and how many keys it destroyed.
type disposal struct {
	item string
	keys int
}

var keysIn = regexp.MustCompile(`(?:^| )keys=([0-9]{1,9})(?: |$)`)

// keysDestroyed is how many keys a unit had whose keys were destroyed since. The event names
// the conversation, which is the unit of a chat; the legs of a call have no more keys than
// the largest disposal.
func (p *pass) keysDestroyed(ctx context.Context, unit string) (int, error) {
	if p.destroyed == nil {
		p.destroyed = []disposal{}
		from := p.state.To.Add(-custody.Lifetime - Slack)
		err := p.each(ctx, from, p.start.Add(Slack), func(rec custody.Record) {
			m := keysIn.FindStringSubmatch(rec.Detail)
			if rec.Action == custody.PackageExpired {
				p.destroyed = append(p.destroyed, disposal{rec.Item, packageKeys})
			}
			if m == nil || rec.Action != custody.Dispose && rec.Action != custody.Erase {
				return
			}
			if n, err := strconv.Atoi(m[1]); err == nil {
				p.destroyed = append(p.destroyed, disposal{rec.Item, n})
			}
		})
		if err != nil {
			p.destroyed = nil
			return 0, err
		}
	}
	most := 0
	for _, d := range p.destroyed {
		if d.item == unit {
			return d.keys, nil
		}
		if !strings.HasPrefix(d.item, packageUnit) {
			most = max(most, d.keys)
		}
	}
	if strings.HasPrefix(unit, packageUnit) {
		return 0, nil // it is there and has no keys: nothing could be opened with this receipt
	}
	return most, nil
}
