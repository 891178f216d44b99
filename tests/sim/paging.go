package sim

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The sizes of a page of messages. The default is not documented; a large $top is known to end in 504,
// https://learn.microsoft.com/en-us/answers/questions/800250.
const (
	defaultMessagesTop = 50
	timeoutTop         = 1000
)

// hit is one message of a result.
type hit struct {
	m *message
	v *version
}

// export is one export request: where messages come from and where its pages are.
type export struct {
	path      string // of the nextLink, below /v1.0
	folder    string // named in the skip token
	list      []*message
	retained  bool
	top, skip int
	loop      bool
	filter    filter
	rawFilter string
}

func (t *Tenant) chatMessages(q *request)         { t.exportChats(q, false) }
func (t *Tenant) retainedChatMessages(q *request) { t.exportChats(q, true) }

func (t *Tenant) exportChats(q *request, retained bool) {
	e, ok := t.readExport(q, true)
	if !ok {
		return
	}
	t.mu.Lock()
	p := t.mailbox(q.params[0])
	t.mu.Unlock()
	switch {
	case p == nil:
		q.fail(t, http.StatusNotFound, "ResourceNotFound", fmt.Sprintf("User '%s' does not exist.", q.params[0]))
		return
	case !p.Mailbox:
		// The export's own answer is not documented; this is that of the Exchange endpoints.
		q.fail(t, http.StatusNotFound, "MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or is hosted on-premise.")
		return
	}
	e.retained = retained
	e.folder = "MailboxFolder=MailFolders/TeamsMessagesData"
	e.path = fmt.Sprintf("/users('%s')/chats/getallMessages", p.ID)
	if retained {
		e.path = fmt.Sprintf("/users('%s')/chats/getAllRetainedMessages", p.ID)
	}
	t.servePage(q, e, func() []*message { return t.mail[p.ID] })
}

// mailbox finds whose messages can be exported: somebody in the directory, or removed from it not long ago. The caller
// holds the lock.
func (t *Tenant) mailbox(idOrUPN string) *Person {
	if p := t.dir.lookup(idOrUPN); p != nil {
		return p
	}
	gone, removed := t.dir.removed[PersonID(strings.ToLower(idOrUPN))]
	if removed && t.now().Sub(gone) < exportAfterRemoval {
		return t.dir.byID[PersonID(strings.ToLower(idOrUPN))]
	}
	return nil
}

func (t *Tenant) channelMessages(q *request) {
	t.exportChannels(q, channelExport{"/teams", false, false})
}
func (t *Tenant) retainedChannelMessages(q *request) {
	t.exportChannels(q, channelExport{"/teams", true, false})
}
func (t *Tenant) deletedTeamMessages(q *request) {
	t.exportChannels(q, channelExport{"/teamwork/deletedTeams", false, true})
}

// channelExport is one of the exports of channels.
type channelExport struct {
	below             string // of the path
	retained, deleted bool
}

func (t *Tenant) exportChannels(q *request, of channelExport) {
	e, ok := t.readExport(q, false)
	if !ok {
		return
	}
	t.mu.Lock()
	i := slices.IndexFunc(t.teams, func(tm *team) bool {
		return strings.EqualFold(tm.id, q.params[0]) && tm.deleted.IsZero() != of.deleted && t.now().Sub(tm.deleted) < exportAfterRemoval == of.deleted
	})
	t.mu.Unlock()
	if i < 0 {
		q.fail(t, http.StatusNotFound, "NotFound", fmt.Sprintf("No team found with Group Id %s", q.params[0]))
		return
	}
	id := t.teams[i].id
	e.retained = of.retained
	e.folder = "MailboxFolder=MailFolders/TeamChat"
	e.path = fmt.Sprintf("%s('%s')/channels/getallMessages", of.below, id)
	if of.retained {
		e.path = fmt.Sprintf("%s('%s')/channels/getAllRetainedMessages", of.below, id)
	}
	t.servePage(q, e, func() []*message { return t.posts[id] })
}

// readExport reads the query; ok is false if it has been answered.
func (t *Tenant) readExport(q *request, identities bool) (e export, ok bool) {
	bad := func(message string) (export, bool) {
		q.fail(t, http.StatusBadRequest, "BadRequest", message)
		return e, false
	}
	for name := range q.query {
		switch name {
		case "$top", "$filter", "$skiptoken", "$skip":
		default:
			if strings.HasPrefix(name, "$") {
				return bad(fmt.Sprintf("Query option '%s' is not allowed. To allow it, set the 'AllowedQueryOptions' property on EnableQueryAttribute or QueryValidationSettings.", name[1:]))
			}
		}
	}
	if e.top, ok = q.top(t, defaultMessagesTop, 0); !ok {
		return e, false
	}
	if e.top >= timeoutTop {
		q.fail(t, http.StatusGatewayTimeout, "UnknownError", "")
		return e, false
	}
	var err error
	e.rawFilter = q.query.Get("$filter")
	if e.filter, err = parseFilter(e.rawFilter, identities); err != nil {
		return bad(err.Error())
	}
	if s := q.query.Get("$skip"); s != "" {
		if e.skip, err = strconv.Atoi(s); err != nil || e.skip < 0 {
			return bad(fmt.Sprintf("Invalid value '%s' for $skip query option found.", s))
		}
	}
	if s := q.query.Get("$skiptoken"); s != "" {
		if e.skip, e.loop, err = readSkip(s); err != nil {
			return bad("The continuation token is invalid or has expired.")
		}
	}
	return e, true
}

// skipToken has the form of the documentation's samples, SkipValue=2#MailboxFolder=MailFolders/TeamsMessagesData in
// base64. It is an offset into the result as it stands when the page is made.
func (e export) skipToken(skip int, loop bool) string {
	s := fmt.Sprintf("SkipValue=%d#%s", skip, e.folder)
	if loop {
		s += loopMark
	}
	return base64.StdEncoding.EncodeToString([]byte(s))
}

const loopMark = "#Again"

func readSkip(token string) (skip int, loop bool, err error) {
	b, err := base64.StdEncoding.DecodeString(token)
	if err != nil {
		return 0, false, err
	}
	s, loop := strings.CutSuffix(string(b), loopMark)
	n, _, ok := strings.Cut(strings.TrimPrefix(s, "SkipValue="), "#MailboxFolder=")
	if !ok {
		return 0, false, errors.New("skip token names no folder")
	}
	if skip, err = strconv.Atoi(n); err == nil && skip < 0 {
		err = errors.New("skip token is negative")
	}
	return skip, loop, err
}

func (e export) nextLink(t *Tenant, q *request, skip int, loop bool) string {
	query := fmt.Sprintf("$top=%d&", e.top)
	if e.retained {
		query += fmt.Sprintf("$skip=%d", skip)
		if loop {
			query += "&$skiptoken=" + url.QueryEscape(e.skipToken(skip, loop))
		}
	} else {
		query += "$skiptoken=" + url.QueryEscape(e.skipToken(skip, loop))
	}
	if e.rawFilter != "" {
		query += "&$filter=" + url.QueryEscape(e.rawFilter)
	}
	return t.link(q, e.path, query)
}

// find returns up to top hits after skip, and whether there are more. The caller holds the lock.
func (t *Tenant) find(e export, now int64) (hits []hit, more bool) {
	n := 0
	take := func(m *message, v *version) bool {
		if !e.filter.match(m, v) {
			return true
		}
		n++
		if n <= e.skip {
			return true
		}
		if len(hits) == e.top {
			more = true
			return false
		}
		hits = append(hits, hit{m, v})
		return true
	}
	for _, m := range e.list {
		if !e.retained {
			if !m.expired(now) && !take(m, m.current()) {
				return hits, more
			}
			continue
		}
		if !t.cfg.Retention {
			continue
		}
		for i := range len(m.versions) - 1 {
			// What retention keeps are edited and deleted texts; a reaction supersedes none.
			why := m.versions[i+1].cause
			if (why == edited || why == deleted) && !take(m, &m.versions[i]) {
				return hits, more
			}
		}
	}
	return hits, more
}

// servePage makes and writes one page. list is called under the lock.
func (t *Tenant) servePage(q *request, e export, list func() []*message) {
	fault := t.faults.firstDue(pageFaults)
	if fault == ShortPage {
		e.top = (e.top + 1) / 2
	}
	prefer := strings.Contains(q.r.Header.Get("Prefer"), "include-unknown-enum-members")
	t.mu.Lock()
	e.list = list()
	now := t.now().UnixMilli()
	hits, more := t.find(e, now)
	next := ""
	switch {
	case fault == EmptyPage:
		hits, next = nil, e.nextLink(t, q, e.skip, false)
	case fault == NextLinkLoop || e.loop:
		next = e.nextLink(t, q, e.skip, true)
	case more:
		next = e.nextLink(t, q, e.skip+len(hits), false)
	}
	t.spoil(hits)
	var page bytes.Buffer
	page.WriteString(`{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#Collection(chatMessage)",`)
	fmt.Fprintf(&page, `"@odata.count":%d,`, len(hits))
	if fault == ForeignNextLink {
		t.faults.mu.Lock()
		next = t.faults.foreign + strings.TrimPrefix(e.nextLink(t, q, e.skip+len(hits), false), t.base(q))
		t.faults.mu.Unlock()
	}
	if next != "" {
		page.WriteString(`"@odata.nextLink":`)
		page.Write(quote(next))
		page.WriteByte(',')
	}
	page.WriteString(`"value":[`)
	for i, h := range hits {
		if i > 0 {
			page.WriteByte(',')
		}
		if h.m.system && !prefer {
			page.Write(withoutPrefer(h.v.body))
		} else {
			page.Write(h.v.body)
		}
		h.v.served = true
	}
	if more && !e.retained {
		t.editServed(hits, now)
	}
	t.mu.Unlock()
	t.writePage(q, fault, page.Bytes())
}

// spoil applies the faults that change a message for good to versions never served before.
func (t *Tenant) spoil(hits []hit) {
	for _, h := range hits {
		if h.v.served || h.m.system || h.v.cause == deleted {
			continue
		}
		malformed, unknown := t.faults.due(MalformedTimestamp), t.faults.due(UnknownMessage)
		if !malformed && !unknown {
			return
		}
		w := decodeWire(h.v.body)
		if malformed {
			w.Created, w.Modified = breakTime(w.Created), breakTime(w.Modified)
		}
		if unknown {
			w.MessageType = "hologramMessage"
			w.unknownMembers = `,"hologram":{"depth":3,"layers":[1.50,2e0,null,{"nested":[[]]}]},"sentimentScore":0.10,"id2":12345678901234567890`
		}
		h.v.body = w.encode()
		return
	}
}

// breakTime is Microsoft's own malformed timestamp, 2021-03-1706:47:05.123Z.
func breakTime(s string) string { return strings.Replace(s, "T", "", 1) }

// editServed lets a message of the page just made be edited, if that fault is due.
func (t *Tenant) editServed(hits []hit, now int64) {
	may := slices.DeleteFunc(slices.Clone(hits), func(h hit) bool { return !h.m.changeable() })
	if len(may) == 0 || !t.faults.due(EditDuringPaging) {
		return
	}
	t.edit(may[0].m, "<p>Corrected at "+stamp(time.UnixMilli(now))+"</p>", now)
}

func quote(s string) []byte {
	b := strconv.AppendQuote(nil, s) // an address holds nothing that JSON writes differently
	return b
}

func (t *Tenant) writePage(q *request, fault Fault, page []byte) {
	h := q.w.Header()
	h.Set("Content-Type", odataJSON)
	page = append(page, "]}"...)
	switch fault {
	case WrongType:
		h.Set("Content-Type", "text/html; charset=utf-8")
		page = []byte("<!DOCTYPE html><html><head><title>Sign in to your account</title></head><body></body></html>")
	case TruncatedBody:
		h.Set("Content-Length", strconv.Itoa(len(page)))
		// A failed write means that the client has gone.
		_, _ = q.w.Write(page[:len(page)/2])
		panic(http.ErrAbortHandler)
	case OversizedPage:
		q.writePadded(t, page)
		return
	}
	_, _ = q.w.Write(page) // as above
}

func (q *request) writePadded(t *Tenant, page []byte) {
	t.faults.mu.Lock()
	left := t.faults.oversize
	t.faults.mu.Unlock()
	blank := bytes.Repeat([]byte(" "), 64<<10)
	if _, err := q.w.Write(page[:len(page)-2]); err != nil {
		return
	}
	for left > 0 {
		n := min(left, len(blank))
		if _, err := q.w.Write(blank[:n]); err != nil {
			return // the client has seen enough
		}
		left -= n
	}
	_, _ = q.w.Write(page[len(page)-2:])
}
