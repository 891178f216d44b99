package sim

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"
)

// tombstoneStands is how long a deleted message can still be exported,
// https://learn.microsoft.com/en-us/microsoftteams/export-teams-content.
const tombstoneStands = 21 * 24 * time.Hour

// ErrNoMessage is returned for a message that does not exist, or that has been deleted and cannot change any more.
var ErrNoMessage = errors.New("no such message")

// message is one message with all its versions, oldest first.
type message struct {
	thread   *thread
	id       int64
	root     int64 // the post it belongs under: itself, or in a channel the one replied to
	order    uint64
	sender   *Person // nil: an application or the system
	app      string  // applicationIdentityType
	system   bool
	roster   []PersonID // who had it in the mailbox; shared, never changed
	versions []version
}

type version struct {
	body     []byte
	modified int64
	cause    cause
	served   bool
}

type cause uint8

const (
	sent cause = iota
	edited
	reacted
	deleted
)

func (m *message) current() *version { return &m.versions[len(m.versions)-1] }

// expired reports whether the message is a tombstone that no export returns any more.
func (m *message) expired(now int64) bool {
	v := m.current()
	return v.cause == deleted && v.modified+tombstoneStands.Milliseconds() <= now
}

// Message names one version of a message.
type Message struct {
	Thread   ThreadID
	ID       string
	ETag     string
	Modified time.Time
}

// Version is one version of a message and how long it stood.
type Version struct {
	Thread       ThreadID
	MessageID    string
	ETag         string
	Bytes        []byte // exactly as served in a page's value to a caller that prefers unknown enum members; not to be changed
	Sent         time.Time
	LastModified time.Time
	CurrentFrom  time.Time
	CurrentTo    time.Time  // zero while it stands; for a deleted message, when exports stop returning it
	Participants []PersonID // who has it in the mailbox or could see it in the channel; not to be changed
	Channel      bool
	Team         string // the team's id, of channels only
	path         string
}

// StoodAt reports whether an export at that time returned this version.
func (v Version) StoodAt(at time.Time) bool {
	return !at.Before(v.CurrentFrom) && (v.CurrentTo.IsZero() || at.Before(v.CurrentTo))
}

// History returns every version of every message that ever stood, by thread in a fixed order, then by message id, then
// oldest first.
func (t *Tenant) History() []Version {
	t.mu.Lock()
	defer t.mu.Unlock()
	var n int
	for _, th := range t.threads {
		for _, m := range th.list {
			n += len(m.versions)
		}
	}
	out := make([]Version, 0, n)
	for _, th := range t.threads {
		for _, m := range th.list {
			out = m.appendHistory(out)
		}
	}
	return out
}

func (m *message) appendHistory(out []Version) []Version {
	for i, v := range m.versions {
		h := Version{
			Thread: m.thread.id, MessageID: text(m.id), ETag: text(v.modified), Bytes: v.body,
			Sent: millis(m.id), LastModified: millis(v.modified), CurrentFrom: millis(v.modified),
			Participants: m.roster, Channel: m.thread.kind.IsChannel(), Team: m.thread.team, path: m.path(),
		}
		switch {
		case i+1 < len(m.versions):
			h.CurrentTo = millis(m.versions[i+1].modified)
		case v.cause == deleted:
			h.CurrentTo = millis(v.modified).Add(tombstoneStands)
		}
		out = append(out, h)
	}
	return out
}

// draft is what a message is made of.
type draft struct {
	content    string
	plain      bool // contentType text
	replyTo    int64
	importance string
	subject    string
	bot        bool
	mentions   []*Person
	files      []string
	image      bool
	violation  bool
	style      int
	nameless   bool

	event     string // a system event of this type
	detail    map[string]any
	initiator PersonID
}

func ptr[T any](v T) *T { return &v }

func userSet(p *Person, named bool) identitySet {
	id := &identity{
		ODataType: "#microsoft.graph.teamworkUserIdentity", ID: string(p.ID),
		UserIdentityType: p.Identity, TenantID: p.Tenant,
	}
	if named {
		id.DisplayName = ptr(p.DisplayName)
	}
	return identitySet{User: id}
}

const pricingBot = "28f4d4b2-3f7e-4f65-9a3c-3a52d1b8c0de"

// post puts a message into a thread, not before at, and into the mailboxes of roster. The caller holds the lock.
func (t *Tenant) post(th *thread, from *Person, d draft, at int64, roster []PersonID) *message {
	id := max(at, th.last+1)
	th.last = id
	m := &message{
		thread: th, id: id, root: cmp.Or(d.replyTo, id), order: mix(string(th.id), id), sender: from, system: d.event != "", roster: roster,
	}
	w := wire{
		ODataType: "#microsoft.graph.chatMessage", ID: text(id), ETag: text(id), MessageType: "message",
		Created: fromMillis(id), Modified: fromMillis(id), Importance: d.importance, Locale: "en-us",
		Body:        wireBody{ContentType: "html", Content: d.content},
		Attachments: []attachment{}, Mentions: []mention{}, Reactions: []reaction{}, MessageHistory: []historyItem{},
		escapedCharacter: d.style,
	}
	if w.Importance == "" {
		w.Importance = "normal"
	}
	if th.kind.IsChannel() {
		t.placeInChannel(&w, th, d, id)
	} else {
		w.ChatID = &th.id
	}
	switch {
	case m.system:
		w.MessageType = "systemEventMessage"
		w.Body.Content = "<systemEventMessage/>"
		w.EventDetail = d.eventJSON(t.dir.byID[d.initiator])
	case d.bot:
		m.sender, m.app = nil, "bot"
		w.From = &identitySet{Application: &application{
			ODataType: "#microsoft.graph.teamworkApplicationIdentity", ID: pricingBot,
			DisplayName: "Rates Pricing Bot", ApplicationIdentityType: m.app,
		}}
	default:
		w.From = ptr(userSet(from, !d.nameless))
	}
	if d.plain {
		w.Body.ContentType = "text"
	}
	t.decorate(&w, th, d)
	m.versions = []version{{body: w.encode(), modified: id}}
	th.byID[id] = m
	th.list = append(th.list, m)
	t.file(m)
	t.notices.publish(m)
	return m
}

func (t *Tenant) placeInChannel(w *wire, th *thread, d draft, id int64) {
	w.ChannelIdentity = &channelIdentity{th.team, th.id}
	root := cmp.Or(d.replyTo, id)
	if root != id {
		w.ReplyToID = ptr(text(root))
	}
	if d.subject != "" {
		w.Subject = &d.subject
	}
	channel := strings.NewReplacer(":", "%3A", "@", "%40").Replace(string(th.id))
	w.WebURL = ptr(fmt.Sprintf("https://teams.microsoft.com/l/message/%s/%d?groupId=%s&tenantId=%s&createdTime=%d&parentMessageId=%d",
		channel, id, th.team, t.cfg.Tenant, id, root))
}

// decorate adds mentions, files, an image and a policy violation.
func (t *Tenant) decorate(w *wire, th *thread, d draft) {
	for i, p := range d.mentions {
		w.Body.Content += fmt.Sprintf(` <at id="%d">%s</at>`, i, p.DisplayName)
		w.Mentions = append(w.Mentions, mention{ID: i, MentionText: p.DisplayName, Mentioned: userSet(p, true)})
	}
	for i, name := range d.files {
		id := fmt.Sprintf("%08x-%04x-4000-8000-%012x", uint32(mix(name, int64(i))), i, mix(w.ID, int64(i))>>16)
		w.Body.Content += fmt.Sprintf(`<attachment id="%s"></attachment>`, id)
		// The real addresses hold unescaped spaces. Who writes from outside shares what lies there.
		host, owner := "contoso", string(th.roster[0])
		from := w.From
		outside := from != nil && from.User != nil && from.User.TenantID != "" && from.User.TenantID != t.cfg.Tenant
		if outside {
			host, owner = "fabrikam", from.User.ID
		}
		url := "https://" + host + "-my.sharepoint.com/personal/" + strings.ReplaceAll(owner, "-", "_") +
			"/Documents/Microsoft Teams Chat Files/" + name
		sent, _ := strconv.ParseInt(w.ID, 10, 64) // it was made of a number
		t.share(url, sent, outside)
		w.Attachments = append(w.Attachments, attachment{ID: id, ContentType: "reference", ContentURL: &url, Name: ptr(name)})
	}
	t.decorateWithHosted(w, th, d)
	if d.violation {
		w.PolicyViolation = json.RawMessage(`{"dlpAction":"notifySender","justificationText":null,"userAction":"none","verdictDetails":null,"policyTip":{"generalText":"This message may hold sensitive information.","complianceUrl":null,"matchedConditionDescriptions":["Credit Card Number"]}}`)
	}
}

// decorateWithHosted adds an image, and to some messages of the history an emoji of the organization's own or a GIF
// from a stranger's host.
func (t *Tenant) decorateWithHosted(w *wire, th *thread, d draft) {
	if d.image {
		at := "/chats/" + string(th.id)
		if th.kind.IsChannel() {
			at = "/teams/" + th.team + "/channels/" + string(th.id)
		}
		hosted := base64.RawStdEncoding.EncodeToString([]byte("id=x_0-weu-d1-" + w.ID + ",type=1,url=https://eu-api.asm.skype.com/v1/objects/0-weu-d1-" + w.ID + "/views/imgo"))
		hosted = strings.ReplaceAll(hosted, "/", "_")
		w.Body.Content += fmt.Sprintf(`<div><span><img height="250" src="%s%s/messages/%s/hostedContents/%s/$value" width="424.6575342465753" style="vertical-align:bottom; width:424px; height:250px"></span></div>`,
			t.cfg.ContentURL, at, w.ID, hosted)
	}
	n, _ := strconv.ParseInt(w.ID, 10, 64) // it was made of a number
	if h := mix(string(th.id), n); t.drawing && !d.plain && d.event == "" && !th.kind.IsChannel() {
		if h%53 == 0 {
			w.Body.Content += fmt.Sprintf(`<customemoji id="x" alt="party" source="%s/chats/%s/messages/%s/hostedContents/%016x/$value"></customemoji>`, t.cfg.ContentURL, th.id, w.ID, h)
		}
		if h%59 == 0 {
			w.Body.Content += fmt.Sprintf(`<img alt="GIF" src="https://media.giphy.com/media/%x/giphy.gif">`, h)
		}
	}
}

func (d draft) eventJSON(by *Person) json.RawMessage {
	members := map[string]any{"@odata.type": "#microsoft.graph." + d.event}
	for k, v := range d.detail {
		members[k] = v
	}
	if by != nil {
		members["initiator"] = userSet(by, false)
	}
	b, err := json.Marshal(members)
	if err != nil {
		panic(err) // the details are made by this package
	}
	return b
}

// file puts a message where exports find it. While history is drawn the lists stay unsorted.
func (t *Tenant) file(m *message) {
	keep := insert
	if t.drawing {
		keep = func(list []*message, m *message) []*message { return append(list, m) }
	}
	if m.thread.kind.IsChannel() {
		t.posts[m.thread.team] = keep(t.posts[m.thread.team], m)
		return
	}
	for _, id := range m.roster {
		if p := t.dir.byID[id]; p.UserType != "" {
			t.mail[id] = keep(t.mail[id], m)
		}
	}
}

// revise appends a version made by change from the current one, not before at.
func (t *Tenant) revise(m *message, at int64, why cause, change func(*wire, string)) {
	cur := m.current()
	at = max(at, cur.modified+1)
	w := decodeWire(cur.body)
	w.escapedCharacter = int(m.order % escapeStyles)
	w.Modified, w.ETag = fromMillis(at), text(at)
	change(&w, w.Modified)
	m.versions = append(m.versions, version{body: w.encode(), modified: at, cause: why})
	t.notices.publish(m)
}

func (t *Tenant) edit(m *message, html string, at int64) {
	t.revise(m, at, edited, func(w *wire, when string) {
		w.Edited = &when
		w.Body.ContentType, w.Body.Content = "html", html
	})
}

func (t *Tenant) delete(m *message, at int64) {
	t.revise(m, at, deleted, func(w *wire, when string) {
		w.Deleted = &when
		if !t.cfg.KeepDeletedBodies {
			w.Body.Content = ""
			w.Attachments, w.Mentions = []attachment{}, []mention{}
		}
	})
}

func (t *Tenant) react(m *message, by *Person, kind string, at int64) {
	t.revise(m, at, reacted, func(w *wire, when string) {
		r := reaction{ReactionType: kind, Created: when, User: userSet(by, false)}
		action := "reactionAdded"
		i := slices.IndexFunc(w.Reactions, func(old reaction) bool {
			return old.ReactionType == kind && old.User.User.ID == string(by.ID)
		})
		if i >= 0 {
			action = "reactionRemoved"
			w.Reactions = slices.Delete(w.Reactions, i, i+1)
		} else {
			w.Reactions = append(w.Reactions, r)
		}
		w.MessageHistory = append(w.MessageHistory, historyItem{Modified: when, Actions: action, Reaction: r})
	})
}

// Send posts a message as HTML. from must be a member of the thread.
func (t *Tenant) Send(thread ThreadID, from PersonID, html string) (Message, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	th, p := t.byThread[thread], t.dir.byID[from]
	if th == nil || p == nil || !slices.Contains(th.roster, from) {
		return Message{}, fmt.Errorf("send to %s: %s is no member", thread, from)
	}
	return t.post(th, p, draft{content: html}, t.now().UnixMilli(), th.roster).named(), nil
}

func (m *message) named() Message {
	v := m.current()
	return Message{m.thread.id, text(m.id), text(v.modified), millis(v.modified)}
}

// Edit replaces a message's body and returns the new version.
func (t *Tenant) Edit(thread ThreadID, id, html string) (Message, error) {
	return t.change(thread, id, func(m *message, now int64) { t.edit(m, html, now) })
}

// Delete marks a message as deleted, as its sender does, and returns the new version.
func (t *Tenant) Delete(thread ThreadID, id string) (Message, error) {
	return t.change(thread, id, t.delete)
}

// React adds a reaction, or removes it if by has given the same one before, and returns the new version.
func (t *Tenant) React(thread ThreadID, id string, by PersonID, kind string) (Message, error) {
	t.mu.Lock()
	p := t.dir.byID[by]
	t.mu.Unlock()
	if p == nil {
		return Message{}, fmt.Errorf("react to %s in %s: no person %s", id, thread, by)
	}
	return t.change(thread, id, func(m *message, now int64) { t.react(m, p, kind, now) })
}

func (t *Tenant) change(thread ThreadID, id string, how func(*message, int64)) (Message, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n, err := strconv.ParseInt(id, 10, 64)
	th := t.byThread[thread]
	if err != nil || th == nil || th.byID[n] == nil || !th.byID[n].changeable() {
		return Message{}, fmt.Errorf("change %s in %s: %w", id, thread, ErrNoMessage)
	}
	m := th.byID[n]
	how(m, t.now().UnixMilli())
	return m.named(), nil
}

func (m *message) changeable() bool { return !m.system && m.current().cause != deleted }

// drawHistory fills the span before the tenant's start with exactly Config.Messages messages.
func (t *Tenant) drawHistory(r *rand.Rand) {
	n := t.cfg.Messages
	span := t.cfg.Span.Milliseconds()
	times := make([]int64, n)
	for i := range times {
		times[i] = t.start.UnixMilli() - 1 - r.Int64N(span)
	}
	slices.Sort(times)
	t.drawing = true
	order := r.Perm(len(t.threads))
	var first []*thread // one of each kind that a small history must not miss
	for _, i := range []int{1, 0, 2, 3, 4} {
		first = append(first, t.threads[i])
	}
	for _, tm := range t.teams[:2] {
		first = append(first, tm.channels[0])
	}
	for i, at := range times {
		var th *thread
		if i < len(first) {
			th = first[i]
		} else {
			// Squaring makes a few conversations busy and most of them quiet.
			u := r.Float64()
			th = t.threads[order[int(u*u*float64(len(order)))]]
		}
		m := t.drawMessage(r, th, at)
		if m.changeable() {
			t.drawChanges(r, m)
		}
		t.remember(m)
	}
	t.drawing = false
	for _, list := range t.mail {
		slices.SortFunc(list, byOrder)
	}
	for _, list := range t.posts {
		slices.SortFunc(list, byOrder)
	}
}
