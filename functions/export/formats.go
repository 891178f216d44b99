package export

import (
	"archive/zip"
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"strings"
	"time"

	"crypto/sha256"

	"steno/shared/conversation"
)

// A vCon (draft-ietf-vcon-vcon-core) of each conversation: who took part and what was said,
// with the recordings as files of the package. Analysis, signing and encryption of its own
// are left out: the package is signed.
type vcon struct {
	VCon        string         `json:"vcon"`
	UUID        string         `json:"uuid"`
	CreatedAt   string         `json:"created_at"`
	Subject     string         `json:"subject,omitempty"`
	Parties     []vconParty    `json:"parties"`
	Dialog      []vconDialog   `json:"dialog"`
	Analysis    []struct{}     `json:"analysis"`
	Attachments []vconAttached `json:"attachments"`
}

type vconParty struct {
	Name string `json:"name,omitempty"`
	UUID string `json:"uuid,omitempty"`
	Tel  string `json:"tel,omitempty"`
}

type vconDialog struct {
	Type        string  `json:"type"` // "text" or "recording"
	Start       string  `json:"start"`
	Duration    float64 `json:"duration,omitempty"` // seconds
	Parties     []int   `json:"parties"`
	Originator  *int    `json:"originator,omitempty"`
	MediaType   string  `json:"mediatype"`
	MessageID   string  `json:"message_id,omitempty"`
	Filename    string  `json:"filename,omitempty"`
	Body        string  `json:"body,omitempty"`
	Encoding    string  `json:"encoding,omitempty"`
	URL         string  `json:"url,omitempty"`
	ContentHash string  `json:"content_hash,omitempty"`
}

type vconAttached struct {
	Filename  string `json:"filename"`
	MediaType string `json:"mediatype"`
	Body      string `json:"body"`
	Encoding  string `json:"encoding"`
}

// vconVersion is the syntax version written.
const vconVersion = "0.4.0"

func writeVCon(w io.Writer, it item, n int, batches [][]byte, a *archive) error {
	sum := sha256.Sum256([]byte("steno-vcon-v1\x00" + it.facts.ID))
	sum[6], sum[8] = 0x80|sum[6]&0x0f, 0x80|sum[8]&0x3f // a UUID of version 8 (RFC 9562)
	h := hex.EncodeToString(sum[:16])
	v := vcon{
		VCon: vconVersion, UUID: strings.Join([]string{h[:8], h[8:12], h[12:16], h[16:20], h[20:]}, "-"),
		CreatedAt: it.facts.Start.UTC().Format(time.RFC3339Nano), Parties: []vconParty{}, Dialog: []vconDialog{}, Analysis: []struct{}{}, Attachments: []vconAttached{},
	}
	at := map[string]int{}
	party := func(p conversation.Participant) int {
		if i, ok := at[p.ID]; ok {
			return i
		}
		at[p.ID] = len(v.Parties)
		v.Parties = append(v.Parties, vconParty{Name: p.Name, UUID: p.ID})
		return at[p.ID]
	}
	var everybody []int
	for _, p := range it.facts.Participants {
		everybody = append(everybody, party(p))
	}
	versions, err := versionsOf(batches)
	if err != nil {
		return err
	}
	for _, m := range versions {
		d := vconDialog{
			Type: "text", Start: m.sent.UTC().Format(time.RFC3339Nano), Parties: everybody, MediaType: "application/json",
			MessageID: m.id + "/" + m.etag, Body: string(m.raw), Encoding: "none",
		}
		if m.author.ID != "" {
			i := party(m.author)
			d.Originator = &i
		}
		v.Dialog = append(v.Dialog, d)
	}
	if c := it.facts.Call; c != nil {
		v.Subject = c.Subject
		for _, tel := range c.Numbers {
			v.Parties = append(v.Parties, vconParty{Tel: tel})
		}
	}
	for leg, u := range it.units {
		if u.leg == nil {
			continue
		}
		name := fmt.Sprintf("media/%06d/leg%d-mixed.mp4", n, leg)
		hash, ok := a.sums[name]
		if !ok {
			continue // nothing was said
		}
		v.Dialog = append(v.Dialog, vconDialog{
			Type: "recording", Start: u.leg.From.UTC().Format(time.RFC3339Nano), Duration: u.leg.To.Sub(u.leg.From).Seconds(), Parties: everybody,
			MediaType: "audio/mp4", Filename: name, URL: name, ContentHash: "sha256-" + base64.RawURLEncoding.EncodeToString(hash[:]),
		})
	}
	for i := range v.Dialog {
		if v.Dialog[i].Parties == nil {
			v.Dialog[i].Parties = []int{}
		}
	}
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// An RSMF file (Relativity Short Message Format 2.0) of each chat: a mail with one
// attachment, rsmf.zip, whose rsmf_manifest.json lists participants, conversation and
// events. Of a message the last version is the event, those before are its edits.
// https://help.relativity.com/RelativityOne/Content/System_Guides/Relativity_Short_Message_Format/Relativity_short_message_format.htm
type rsmf struct {
	Version       string             `json:"version"`
	Participants  []rsmfParticipant  `json:"participants"`
	Conversations []rsmfConversation `json:"conversations"`
	Events        []rsmfEvent        `json:"events"`
}

type rsmfParticipant struct {
	ID      string `json:"id"`
	Display string `json:"display"`
}

type rsmfConversation struct {
	ID           string   `json:"id"`
	Display      string   `json:"display"`
	Platform     string   `json:"platform"`
	Type         string   `json:"type"` // "direct" or "channel"
	Participants []string `json:"participants"`
}

type rsmfEvent struct {
	ID           string     `json:"id"`
	Type         string     `json:"type"`
	Participant  string     `json:"participant,omitempty"`
	Conversation string     `json:"conversation"`
	Timestamp    string     `json:"timestamp"`
	Body         string     `json:"body"`
	Deleted      bool       `json:"deleted,omitempty"`
	Edits        []rsmfEdit `json:"edits,omitempty"`
}

type rsmfEdit struct {
	Participant string `json:"participant,omitempty"`
	Timestamp   string `json:"timestamp"`
	Previous    string `json:"previous"`
	New         string `json:"new"`
}

func rsmfOf(facts conversation.Conversation, versions []version) rsmf {
	kind := "channel"
	if facts.Kind == "oneOnOne" {
		kind = "direct"
	}
	m := rsmf{Version: "2.0.0", Participants: []rsmfParticipant{}, Events: []rsmfEvent{}}
	conv := rsmfConversation{ID: string(facts.ID), Display: titleOf(facts), Platform: "Microsoft Teams", Type: kind, Participants: []string{}}
	known := map[string]bool{}
	meet := func(p conversation.Participant) {
		if p.ID == "" || known[p.ID] {
			return
		}
		known[p.ID] = true
		m.Participants = append(m.Participants, rsmfParticipant{p.ID, cmp.Or(p.Name, p.ID)})
		conv.Participants = append(conv.Participants, p.ID)
	}
	for _, p := range facts.Participants {
		meet(p)
	}
	for i, v := range versions {
		meet(v.author)
		stamp := v.sent.UTC().Format(time.RFC3339Nano)
		if i > 0 && versions[i-1].id == v.id {
			e := &m.Events[len(m.Events)-1]
			changed := stamp
			if !v.modified.IsZero() {
				changed = v.modified.UTC().Format(time.RFC3339Nano)
			}
			e.Edits = append(e.Edits, rsmfEdit{Participant: v.author.ID, Timestamp: changed, Previous: e.Body, New: v.text})
			e.Body, e.Deleted = v.text, v.deleted != ""
			continue
		}
		m.Events = append(m.Events, rsmfEvent{
			ID: v.id, Type: "message", Participant: v.author.ID, Conversation: conv.ID, Timestamp: stamp, Body: v.text, Deleted: v.deleted != "",
		})
	}
	m.Conversations = []rsmfConversation{conv}
	return m
}

func writeRSMF(w io.Writer, facts conversation.Conversation, versions []version) error {
	m := rsmfOf(facts, versions)
	manifest, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var inner bytes.Buffer
	z := zip.NewWriter(&inner)
	f, err := z.CreateHeader(&zip.FileHeader{Name: "rsmf_manifest.json", Method: zip.Deflate})
	if err == nil {
		_, err = f.Write(manifest)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return err
	}
	boundary := "steno-" + strings.ReplaceAll(string(facts.ID), "-", "")
	_, err = fmt.Fprintf(w, "X-RSMF-Version: 2.0.0\r\nX-RSMF-Generator: Steno\r\nX-RSMF-BeginDate: %s\r\nX-RSMF-EndDate: %s\r\nX-RSMF-EventCount: %d\r\n"+
		"Date: %s\r\nSubject: %s\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"%s\"\r\n\r\n"+
		"--%[6]s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n%[7]s\r\n"+
		"--%[6]s\r\nContent-Type: application/zip\r\nContent-Transfer-Encoding: base64\r\nContent-Disposition: attachment; filename=\"rsmf.zip\"\r\n\r\n%[8]s\r\n--%[6]s--\r\n",
		facts.First.UTC().Format(time.RFC3339), facts.Last.UTC().Format(time.RFC3339), len(m.Events),
		facts.Start.UTC().Format(time.RFC1123Z), mime.QEncoding.Encode("utf-8", titleOf(facts)), boundary,
		wrapped([]byte(said(m))), wrapped(inner.Bytes()))
	return err
}

// said is what a mail program shows of an RSMF file, and what an index finds.
func said(m rsmf) string {
	names := map[string]string{}
	for _, p := range m.Participants {
		names[p.ID] = p.Display
	}
	var b strings.Builder
	for _, e := range m.Events {
		fmt.Fprintf(&b, "%s %s: %s\r\n", e.Timestamp, cmp.Or(names[e.Participant], "System"), e.Body)
	}
	return b.String()
}

// wrapped is base64 in lines of 76, as RFC 2045 section 6.8 has it.
func wrapped(b []byte) string {
	s := base64.StdEncoding.EncodeToString(b)
	var out strings.Builder
	for len(s) > 76 {
		out.WriteString(s[:76] + "\r\n")
		s = s[76:]
	}
	return out.String() + s
}
