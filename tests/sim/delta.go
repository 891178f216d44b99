package sim

import (
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// deltaMembers is how many members of one group a page of groups/delta shows; a larger group comes again on the next.
const deltaMembers = 20

// deltaPart is one appearance of a group on a page of groups/delta.
type deltaPart struct {
	group   *Group
	members []map[string]any
}

// serveGroupsDelta serves the first state of groups with their direct members, then what has changed since a token:
// https://learn.microsoft.com/en-us/graph/api/group-delta. The same change is told again until its deltaLink is used.
func (t *Tenant) serveGroupsDelta(q *request) {
	if !q.only(t, "$select", "$filter", "$expand", "$skiptoken", "$deltatoken") {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	// A token holds the state that the round began from and ends at, the part that comes next, and the filter.
	from, to, skip := -1, len(t.dir.changes), 0
	filter := q.query.Get("$filter")
	if token := q.query.Get("$skiptoken") + q.query.Get("$deltatoken"); token != "" {
		var err error
		if from, to, skip, filter, err = readDelta(token); err != nil || from > len(t.dir.changes) {
			q.fail(t, http.StatusGone, "resyncRequired", "Resync required. Replace any local items with the server's version.")
			return
		}
		if q.query.Has("$deltatoken") {
			from, to, skip = to, len(t.dir.changes), 0
		}
	}
	q.query.Set("$filter", filter)
	if filter == "" {
		q.query.Del("$filter")
	}
	keep, ok := q.directoryFilter(t, "id")
	if !ok {
		return
	}
	var parts []deltaPart
	for _, g := range t.dir.groups {
		if keep(map[string]string{"id": g.ID}) {
			parts = append(parts, t.dir.deltaParts(g, from, to)...)
		}
	}
	body := map[string]any{"@odata.context": odataContext + "groups"}
	values := []any{}
	if skip < len(parts) {
		p := parts[skip]
		value := t.groupJSON(q, p.group)
		value["id"] = p.group.ID
		value["members@delta"] = p.members
		values = append(values, value)
	}
	body["value"] = values
	if skip+1 < len(parts) {
		body["@odata.nextLink"] = t.link(q, "/groups/delta", "$skiptoken="+deltaToken(from, to, skip+1, filter))
	} else {
		body["@odata.deltaLink"] = t.link(q, "/groups/delta", "$deltatoken="+deltaToken(from, to, 0, filter))
	}
	q.json(http.StatusOK, body)
}

// deltaParts are the parts of a group in the round from one state to another; from is negative for the first round.
func (d *directory) deltaParts(g *Group, from, to int) []deltaPart {
	var members []map[string]any
	show := func(m Member) map[string]any {
		return map[string]any{"@odata.type": "#microsoft.graph." + m.Type, "id": m.ID}
	}
	if from < 0 {
		for _, m := range g.Members {
			members = append(members, show(m))
		}
	} else {
		final := map[Member]bool{}
		var order []Member
		for _, c := range d.changes[from:to] {
			if c.group == g.ID {
				if _, seen := final[c.member]; !seen {
					order = append(order, c.member)
				}
				final[c.member] = c.added
			}
		}
		for _, m := range order {
			shown := show(m)
			if !final[m] {
				shown["@removed"] = map[string]string{"reason": "deleted"}
			}
			members = append(members, shown)
		}
		if len(members) == 0 {
			return nil
		}
	}
	var parts []deltaPart
	for chunk := range slices.Chunk(members, deltaMembers) {
		parts = append(parts, deltaPart{g, chunk})
	}
	if len(parts) == 0 {
		parts = []deltaPart{{g, []map[string]any{}}}
	}
	return parts
}

func deltaToken(from, to, skip int, filter string) string {
	return fmt.Sprintf("%d.%d.%d.%x", from, to, skip, filter)
}

func readDelta(token string) (from, to, skip int, filter string, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 4 {
		return 0, 0, 0, "", fmt.Errorf("read delta token: %d parts", len(parts))
	}
	for i, into := range []*int{&from, &to, &skip} {
		if *into, err = strconv.Atoi(parts[i]); err != nil {
			return 0, 0, 0, "", fmt.Errorf("read delta token: %w", err)
		}
	}
	if from < -1 || to < from || to < 0 || skip < 0 {
		return 0, 0, 0, "", fmt.Errorf("read delta token: out of range")
	}
	raw, err := hex.DecodeString(parts[3])
	if err != nil {
		return 0, 0, 0, "", fmt.Errorf("read delta token: %w", err)
	}
	return from, to, skip, string(raw), nil
}
