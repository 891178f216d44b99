package portal

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"steno/shared/custody"
	"steno/shared/policy"
	"steno/shared/teams"
)

// Limits of reading the trail.
const (
	// maxTrailRange is the longest stretch one request looks through; a day costs a query.
	maxTrailRange = 31 * 24 * time.Hour
	// maxTrailed is the most events a page holds, and maxTrailScanned how many it looks
	// through for them.
	maxTrailed      = 1000
	maxTrailScanned = 20_000
)

// trailItem is what a reading of the trail is itself recorded as.
const trailItem = "custody-trail"

// trailQuery is what was asked of the trail. Empty filters match everything.
type trailQuery struct {
	from, to time.Time
	after    string // the id of the last event of the page before
	actor    teams.PersonID
	action   custody.Action
	item     string
	limit    int
}

type trailAnswer struct {
	Events []custody.Record `json:"events"`
	// Cursor continues the listing; absent when everything was looked through.
	Cursor string  `json:"cursor,omitempty"`
	People []named `json:"people"` // what the actors are called
}

func (p *Portal) readTrailQuery(v url.Values) (trailQuery, error) {
	if err := checkNames(v, "from", "to", "actor", "action", "item", "cursor", "limit"); err != nil {
		return trailQuery{}, err
	}
	now := p.config.Now().UTC()
	q := trailQuery{from: now.AddDate(0, 0, -1), to: now.Add(time.Minute), action: custody.Action(v.Get("action")), item: v.Get("item"), limit: 200}
	var err error
	if q.from, q.to, err = readStretch(v, q.from, q.to, maxTrailRange); err != nil {
		return q, err
	}
	if len(q.action) > 32 || len(q.item) > 64 {
		return q, badRequest("action, item: too long")
	}
	if s := v.Get("actor"); s != "" {
		if q.actor, err = teams.ParsePersonID(s); err != nil {
			return q, badRequest("actor: want an object id")
		}
	}
	if s := v.Get("limit"); s != "" {
		if q.limit, err = strconv.Atoi(s); err != nil || q.limit < 1 || q.limit > maxTrailed {
			return q, badRequest(fmt.Sprintf("limit: want 1 to %d", maxTrailed))
		}
	}
	if q.after = v.Get("cursor"); q.after != "" {
		at, err := custody.TimeOf(q.after)
		if err != nil {
			return q, badRequest("cursor: not one of ours")
		}
		if at.After(q.from) {
			q.from = at
		}
	}
	return q, nil
}

func (q trailQuery) matches(e custody.Record) bool {
	return e.ID > q.after && (q.actor == "" || e.Actor == q.actor) && (q.action == "" || e.Action == q.action) && (q.item == "" || e.Item == q.item || slices.ContainsFunc(e.Objects, func(o custody.Object) bool { return o.Unit == q.item }))
}

// objectsCell lists the objects of an event in one cell: UNIT/OBJECT=SHA256, or what is void.
func objectsCell(objects []custody.Object) string {
	var b strings.Builder
	for i, o := range objects {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(o.Unit + "/" + o.Object + "=" + cmp.Or(o.SHA256, "void"))
	}
	return b.String()
}

// readTrail answers what the caller may see of the trail, oldest first. Auditors and
// compliance officers see all of it, supervisors and administrators what they did
// themselves, and nobody else sees any. Reading is an event of its own, and durable first.
func (p *Portal) readTrail(r *http.Request, c caller) (trailAnswer, error) {
	out := trailAnswer{Events: []custody.Record{}}
	q, err := p.readTrailQuery(r.URL.Query())
	if err != nil {
		return out, err
	}
	switch g := c.grant; {
	case g.Has(policy.Auditor) || g.Has(policy.ComplianceOfficer):
	case g.Has(policy.Supervisor) || g.Has(policy.Administrator):
		if q.actor != "" && q.actor != c.person {
			return out, p.noteTrail(r.Context(), c, 0)
		}
		q.actor = c.person
	default:
		return out, p.noteTrail(r.Context(), c, 0)
	}
	if out.Events, out.Cursor, err = p.scanTrail(r.Context(), q); err != nil {
		return out, err
	}
	return out, p.noteTrail(r.Context(), c, len(out.Events))
}

// scanTrail looks for a page of events, and returns where to go on.
func (p *Portal) scanTrail(ctx context.Context, q trailQuery) (events []custody.Record, cursor string, err error) {
	events = []custody.Record{}
	// The event that a cursor names is read again, and all of its microsecond.
	records, err := p.stores.Trail.Trail.Range(ctx, q.from, q.to, maxTrailScanned)
	if err != nil {
		return nil, "", err
	}
	for _, e := range records {
		if !q.matches(e) {
			continue
		}
		if len(events) == q.limit {
			return events, events[len(events)-1].ID, nil
		}
		events = append(events, e)
	}
	if len(records) == maxTrailScanned {
		cursor = records[len(records)-1].ID
	}
	return events, cursor, nil
}

func (p *Portal) noteTrail(ctx context.Context, c caller, n int) error {
	_, err := p.stores.Trail.Append(ctx, custody.Event{
		Tenant: p.config.Tenant, Action: custody.List, Actor: c.person, Session: c.session, Item: trailItem, Detail: fmt.Sprintf("%d events", n),
	})
	return err
}

func (p *Portal) trail(w http.ResponseWriter, r *http.Request, c caller) error {
	a, err := p.readTrail(r, c)
	if err != nil {
		return err
	}
	var actors []teams.PersonID
	for _, e := range a.Events {
		actors = append(actors, e.Actor)
	}
	if a.People, err = p.called(r.Context(), actors...); err != nil {
		return err
	}
	return p.reply(w, a)
}

// trailTable answers the same as a table for spreadsheets. Its last row says where to go
// on, if it is not all.
func (p *Portal) trailTable(w http.ResponseWriter, r *http.Request, c caller) error {
	a, err := p.readTrail(r, c)
	if err != nil {
		return err
	}
	var b strings.Builder
	out := csv.NewWriter(&b)
	rows := [][]string{{"id", "at", "tenant", "action", "actor", "system", "item", "objects", "reason", "session", "detail"}}
	for _, e := range a.Events {
		rows = append(rows, []string{
			e.ID, e.At.UTC().Format(time.RFC3339Nano), string(e.Tenant), string(e.Action), string(e.Actor), e.System, e.Item, objectsCell(e.Objects), e.Reason, e.Session, e.Detail,
		})
	}
	if a.Cursor != "" {
		rows = append(rows, []string{"cursor", a.Cursor})
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = harmless(cell)
		}
	}
	if err := out.WriteAll(rows); err != nil {
		return err
	}
	w.Header().Set("Content-Disposition", `attachment; filename="custody.csv"`)
	p.media(w, "text/csv; charset=utf-8", []byte(b.String()))
	return nil
}

// harmless keeps a spreadsheet from taking a cell for a formula: what may begin one gets
// a quote before it.
// https://owasp.org/www-community/attacks/CSV_Injection
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		return "'" + cell
	}
	return cell
}
