package portal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
	"steno/shared/teams"
)

type conversationAnswer struct {
	conversation.Conversation
	ThreadKey conversation.ThreadKey `json:"threadKey"`
	Objects   int                    `json:"objects"`
	Receipts  int                    `json:"receipts"`
	Legs      []legAnswer            `json:"legs,omitempty"` // of a call
}

func (p *Portal) conversation(w http.ResponseWriter, r *http.Request, c caller) error {
	s, call, err := p.look(r, c)
	if err != nil {
		return err
	}
	facts := s.Conversation
	var legs []legAnswer
	if call.Revision != "" {
		facts, legs = call.Conversation, p.legsOf(c, call)
	}
	conv := visibleNames(facts)
	recorded := make([]conversation.Participant, len(legs))
	for i, l := range legs {
		recorded[i] = l.Recorded
	}
	if err := p.fillNames(r.Context(), conv.Participants, recorded); err != nil {
		return err
	}
	for i := range legs {
		legs[i].Recorded = recorded[i]
	}
	return p.reply(w, conversationAnswer{conv, conv.ID.Thread(), len(s.Objects), len(s.Receipts), legs})
}

// version is one version of a message as shown.
type version struct {
	ETag       string     `json:"etag"`
	Modified   *time.Time `json:"modified"`
	Edited     *time.Time `json:"edited,omitempty"`
	Deleted    *time.Time `json:"deleted,omitempty"`
	HTML       string     `json:"html"` // sanitized; safe in a sandboxed frame
	Text       string     `json:"text"` // the same as plain text
	Subject    string     `json:"subject,omitempty"`
	Reactions  []string   `json:"reactions,omitempty"`
	Attached   []attached `json:"attached,omitempty"`
	Custodian  string     `json:"custodian"` // whose export returned it
	CapturedAt time.Time  `json:"capturedAt"`
	SHA256     string     `json:"sha256"` // of the original bytes
}

// message is a message with all its versions, oldest first.
type message struct {
	ID       string                   `json:"id"`
	Sent     time.Time                `json:"sent"`
	Type     string                   `json:"type"`
	From     conversation.Participant `json:"from"`
	Unclear  bool                     `json:"unclear,omitempty"`
	Versions []version                `json:"versions"`
}

type messagesAnswer struct {
	Conversation conversation.Conversation `json:"conversation"`
	Messages     []message                 `json:"messages"`
	// Pending counts versions that are claimed and not stored yet.
	Pending int `json:"pending,omitempty"`
	// Truncated tells that the conversation is larger than one answer may be.
	Truncated bool   `json:"truncated,omitempty"`
	Event     string `json:"event"` // id of the custody event that this reading left
}

func (p *Portal) messages(w http.ResponseWriter, r *http.Request, c caller) error {
	s, err := p.find(r, c)
	if err != nil {
		return err
	}
	receipt, err := p.receipt(r.Context(), c, s.Conversation.ID, "")
	if err != nil {
		return err
	}
	out := messagesAnswer{Conversation: visibleNames(s.Conversation), Event: receipt.Event()}
	fetched, err := p.fetched(r.Context(), s.Conversation.ID)
	if err != nil {
		return err
	}
	byID := map[teams.MessageID]*message{}
	room := int64(maxShown)
	for _, o := range s.Objects {
		if o.File != nil {
			continue
		}
		read, items, err := p.open(r.Context(), s.Conversation.ID, o, receipt, room)
		switch {
		case errors.Is(err, errPending):
			out.Pending += len(o.Versions)
			continue
		case errors.Is(err, errRoom):
			out.Truncated = true
			continue
		case err != nil:
			return err
		}
		room -= read.size
		for _, raw := range items {
			addVersion(byID, raw, read.header, fetched)
		}
	}
	for _, m := range byID {
		slices.SortStableFunc(m.Versions, compareVersions)
		out.Messages = append(out.Messages, *m)
	}
	slices.SortFunc(out.Messages, func(a, b message) int {
		if n := a.Sent.Compare(b.Sent); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	authors := make([]conversation.Participant, len(out.Messages))
	for i, m := range out.Messages {
		authors[i] = m.From
	}
	if err := p.fillNames(r.Context(), authors, out.Conversation.Participants); err != nil {
		return err
	}
	for i := range out.Messages {
		out.Messages[i].From = authors[i]
	}
	return p.reply(w, out)
}

// receipt leaves the custody event without which evidence opens nothing.
func (p *Portal) receipt(ctx context.Context, c caller, id conversation.ID, detail string) (custody.Receipt, error) {
	return p.stores.Trail.Append(ctx, custody.Event{
		Tenant: p.config.Tenant, Action: custody.Read, Actor: c.person, Session: c.session, Item: string(id), Detail: detail,
	})
}

// Why an object is left out of an answer.
var (
	errRoom    = errors.New("more than one answer may hold")
	errPending = errors.New("promised and not stored yet")
)

type readBatch struct {
	header conversation.BatchHeader
	size   int64
}

// open reads one object of a conversation and checks that its bytes are the ones the
// catalog lists.
func (p *Portal) open(ctx context.Context, id conversation.ID, o conversation.Object, receipt custody.Receipt, room int64) (readBatch, [][]byte, error) {
	ref := evidence.Ref{Tenant: p.config.Tenant, Unit: string(id), Object: o.Name}
	obj, err := p.stores.Evidence.Open(ctx, ref, receipt)
	if errors.Is(err, evidence.ErrNotFound) {
		return readBatch{}, nil, p.missing(ctx, ref)
	}
	if err != nil {
		return readBatch{}, nil, err
	}
	if obj.Size() > room {
		return readBatch{}, nil, errRoom
	}
	plain, err := obj.ReadAll(room)
	if err != nil {
		return readBatch{}, nil, fmt.Errorf("object %s: %w", o.Name, err)
	}
	h, items, err := conversation.DecodeBatch(plain)
	if err != nil {
		return readBatch{}, nil, fmt.Errorf("object %s: %w", o.Name, err)
	}
	if h.Conversation != id || h.Tenant != p.config.Tenant || len(items) != len(o.Versions) {
		return readBatch{}, nil, fmt.Errorf("object %s: %w: it is not what the catalog lists", o.Name, evidence.ErrCorrupt)
	}
	return readBatch{h, obj.Size()}, items, nil
}

// missing tells an object that is promised and not stored yet from one that is stored
// and cannot be opened for want of its key. The second is an incident.
func (p *Portal) missing(ctx context.Context, ref evidence.Ref) error {
	there, err := p.stores.Evidence.Exists(ctx, ref)
	switch {
	case err != nil:
		return err
	case there:
		return fmt.Errorf("object %s: %w: there is no such key", ref.Object, evidence.ErrKey)
	}
	return errPending
}

// shown is the part of a chatMessage that is shown.
type shown struct {
	LastModified *string `json:"lastModifiedDateTime"`
	LastEdited   *string `json:"lastEditedDateTime"`
	Deleted      *string `json:"deletedDateTime"`
	Subject      *string `json:"subject"`
	Body         *struct {
		ContentType string `json:"contentType"`
		Content     string `json:"content"`
	} `json:"body"`
	Reactions []struct {
		ReactionType string `json:"reactionType"`
	} `json:"reactions"`
	EventDetail *struct {
		Type string `json:"@odata.type"`
	} `json:"eventDetail"`
}

func addVersion(byID map[teams.MessageID]*message, raw []byte, h conversation.BatchHeader, fetched map[conversation.AttachmentID]conversation.Attachment) {
	m := conversation.ReadMessage(raw, h.Custodian)
	known := byID[m.Message]
	if known == nil {
		m.From.Name = visible(m.From.Name)
		known = &message{ID: string(m.Message), Sent: m.Sent, Type: m.Type, From: m.From, Unclear: m.Unclear != nil}
		byID[m.Message] = known
	}
	v := version{ETag: string(m.ETag), Custodian: string(h.Custodian), CapturedAt: h.FetchedAt, SHA256: digest(raw)}
	var s shown
	// A message that does not read as one is shown as the text it is.
	if err := json.Unmarshal(raw, &s); err != nil || m.Unclear != nil {
		v.Text = visible(strings.ToValidUTF8(string(raw[:min(len(raw), maxText)]), "\uFFFD"))
		v.HTML = escapeText(v.Text)
		known.Versions = append(known.Versions, v)
		return
	}
	v.Modified, v.Edited, v.Deleted = moment(s.LastModified), moment(s.LastEdited), moment(s.Deleted)
	if s.Subject != nil {
		v.Subject = visible(*s.Subject)
	}
	if s.Body != nil {
		if strings.EqualFold(s.Body.ContentType, "html") {
			v.HTML, v.Text = sanitize(s.Body.Content)
		} else {
			v.Text = visible(s.Body.Content)
			v.HTML = escapeText(s.Body.Content)
		}
	}
	if s.EventDetail != nil && v.Text == "" {
		v.Text = eventText(s.EventDetail.Type)
		v.HTML = escapeText(v.Text)
	}
	for _, ref := range conversation.ReferencesOf(m) {
		v.Attached = append(v.Attached, attachedAs(ref, fetched))
	}
	for _, x := range s.Reactions {
		v.Reactions = append(v.Reactions, visible(x.ReactionType))
	}
	known.Versions = append(known.Versions, v)
}

// eventText makes #microsoft.graph.membersAddedEventMessageDetail readable.
func eventText(odataType string) string {
	name := strings.TrimSuffix(strings.TrimPrefix(odataType, "#microsoft.graph."), "EventMessageDetail")
	var b strings.Builder
	for i, c := range visible(name) {
		if c >= 'A' && c <= 'Z' && i > 0 {
			b.WriteByte(' ')
			c += 'a' - 'A'
		}
		b.WriteRune(c)
	}
	return "System event: " + b.String()
}

func moment(s *string) *time.Time {
	if s == nil {
		return nil
	}
	t, err := time.Parse(time.RFC3339Nano, *s)
	if err != nil {
		return nil // shown without; the original has it as it was sent
	}
	return &t
}

func compareVersions(a, b version) int {
	switch {
	case a.Modified == nil || b.Modified == nil:
		return strings.Compare(a.ETag, b.ETag)
	default:
		return a.Modified.Compare(*b.Modified)
	}
}

// original serves one version as the exact bytes that Graph sent, as a download that
// no browser will run.
func (p *Portal) original(w http.ResponseWriter, r *http.Request, c caller) error {
	message, err := teams.ParseMessageID(r.PathValue("message"))
	if err != nil {
		return errNotFound
	}
	etag, err := teams.ParseETag(r.PathValue("etag"))
	if err != nil {
		return errNotFound
	}
	s, err := p.find(r, c)
	if err != nil {
		return err
	}
	key := conversation.VersionKey{Message: message, ETag: etag}
	o, ok := s.Holds(key)
	if !ok {
		return errNotFound
	}
	receipt, err := p.receipt(r.Context(), c, s.Conversation.ID, "original "+string(message)+" "+string(etag))
	if err != nil {
		return err
	}
	_, items, err := p.open(r.Context(), s.Conversation.ID, o, receipt, maxShown)
	if errors.Is(err, errPending) {
		return errNotFound
	}
	if err != nil {
		return err
	}
	i := slices.IndexFunc(o.Versions, func(v conversation.Version) bool { return v.VersionKey == key })
	raw := items[i]
	if sum := o.Versions[i].SHA256; digest(raw) != fmt.Sprintf("%x", sum) {
		return fmt.Errorf("object %s: %w: a message is not the one the catalog lists", o.Name, evidence.ErrCorrupt)
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", `attachment; filename="message.json"`)
	w.Header().Set("Cache-Control", "no-store, private")
	_, _ = w.Write(raw) // the caller is gone if this fails
	return nil
}
