package export

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/html"

	"steno/shared/conversation"
)

// version is one version of a message as people read it.
type version struct {
	raw         []byte
	id, etag    string
	sent        time.Time
	modified    time.Time
	edited      string
	deleted     string
	author      conversation.Participant
	text        string
	subject     string
	attachments []string
	unclear     bool
}

// body is what a transcript takes from a chatMessage. Members that are not as Graph
// describes them are left out: the original is beside.
// https://learn.microsoft.com/graph/api/resources/chatmessage
type body struct {
	LastModified string `json:"lastModifiedDateTime"`
	LastEdited   string `json:"lastEditedDateTime"`
	Deleted      string `json:"deletedDateTime"`
	Subject      string `json:"subject"`
	Body         struct {
		ContentType string `json:"contentType"`
		Content     string `json:"content"`
	} `json:"body"`
	Attachments []struct {
		Name string `json:"name"`
	} `json:"attachments"`
}

// versionsOf reads the versions of a conversation out of its batches, in the order they
// were sent, and of one message in the order of its changes.
func versionsOf(batches [][]byte) ([]version, error) {
	var out []version
	for _, b := range batches {
		h, items, err := conversation.DecodeBatch(b)
		if err != nil {
			return nil, err
		}
		for _, raw := range items {
			m := conversation.ReadMessage(raw, h.Custodian)
			v := version{raw: raw, id: string(m.Message), etag: string(m.ETag), sent: m.Sent, author: m.From, unclear: m.Unclear != nil}
			var p body
			if err := json.Unmarshal(raw, &p); err == nil {
				v.edited, v.deleted, v.subject, v.text = p.LastEdited, p.Deleted, p.Subject, p.Body.Content
				if !strings.EqualFold(p.Body.ContentType, "text") {
					v.text = plainText(p.Body.Content)
				}
				for _, a := range p.Attachments {
					if a.Name != "" {
						v.attachments = append(v.attachments, a.Name)
					}
				}
				if t, err := time.Parse(time.RFC3339Nano, p.LastModified); err == nil {
					v.modified = t
				}
			}
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b version) int {
		return cmp.Or(a.sent.Compare(b.sent), cmp.Compare(a.id, b.id), a.modified.Compare(b.modified), cmp.Compare(a.etag, b.etag))
	})
	return out, nil
}

// maxPlain bounds the text of one message in a transcript.
const maxPlain = 1 << 20

// plainText is what a page of HTML says. Nothing of its markup stays.
func plainText(s string) string {
	var b strings.Builder
	z := html.NewTokenizer(io.LimitReader(strings.NewReader(s), maxPlain))
	skip := 0
	for {
		switch z.Next() {
		case html.ErrorToken:
			return strings.TrimSpace(b.String())
		case html.TextToken:
			if skip == 0 {
				b.Write(z.Text())
			}
		case html.StartTagToken:
			switch name, _ := z.TagName(); string(name) {
			case "script", "style":
				skip++
			case "p", "br", "div", "li", "tr", "blockquote", "h1", "h2", "h3":
				b.WriteByte('\n')
			}
		case html.EndTagToken:
			if name, _ := z.TagName(); skip > 0 && (string(name) == "script" || string(name) == "style") {
				skip--
			}
		case html.SelfClosingTagToken:
			if name, _ := z.TagName(); string(name) == "br" {
				b.WriteByte('\n')
			}
		}
	}
}

// visible replaces what would turn the direction of text or end a line (threats: an
// attachment called cod.exe that reads as a document).
func visible(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f, r == 0x061c:
			return '\ufffd'
		case r < 0x20 && r != '\n' && r != '\t', r == 0x7f:
			return -1
		}
		return r
	}, s)
}

// writeChat writes a chat for programs and for people.
func writeChat(a *archive, n int, facts conversation.Conversation, batches [][]byte, sources []string, files []attachedFile) error {
	versions, err := versionsOf(batches)
	if err != nil {
		return err
	}
	err = a.derive(fmt.Sprintf("chat/%06d/messages.ndjson", n), "each original, without line ends between its members", sources, func(w io.Writer) error {
		for _, v := range versions {
			var line bytes.Buffer
			if json.Compact(&line, v.raw) != nil { // no JSON: kept as a text
				line.Reset()
				b, err := json.Marshal(map[string][]byte{"notJSON": v.raw})
				if err != nil {
					return err
				}
				line.Write(b)
			}
			line.WriteByte('\n')
			if _, err := w.Write(line.Bytes()); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	err = a.derive(fmt.Sprintf("chat/%06d/transcript.html", n), "transcript", sources, func(w io.Writer) error {
		return transcript.Execute(w, transcriptOf(facts, versions, files))
	})
	if err != nil {
		return err
	}
	return a.derive(fmt.Sprintf("rsmf/%06d.rsmf", n), "RSMF 2.0", sources, func(w io.Writer) error {
		return writeRSMF(w, facts, versions)
	})
}

type shownMessage struct {
	Author, Sent, Text, Subject, State string
	Attachments                        []string
	Earlier                            []shownMessage
}

type shownChat struct {
	Title, ID, Day string
	Messages       []shownMessage
	Files          []shownFile
}

// shownFile is an attachment: where it lies in the package, or why it does not.
type shownFile struct{ Name, Link, State string }

func transcriptOf(facts conversation.Conversation, versions []version, files []attachedFile) shownChat {
	c := shownChat{Title: titleOf(facts), ID: string(facts.ID), Day: facts.ID.Day().Format(time.DateOnly)}
	for i, v := range versions {
		s := shown(v)
		if i > 0 && versions[i-1].id == v.id {
			last := &c.Messages[len(c.Messages)-1]
			earlier := append(last.Earlier, *last)
			earlier[len(earlier)-1].Earlier = nil
			s.Earlier = earlier
			*last = s
			continue
		}
		c.Messages = append(c.Messages, s)
	}
	for _, f := range files {
		s := shownFile{Name: visible(cmp.Or(f.Name, string(f.Kind))), State: "message " + visible(string(f.Message))}
		switch {
		case f.Path != "":
			s.Link = strings.TrimPrefix(f.Path, path.Dir(path.Dir(f.Path))+"/")
		case len(f.EvidenceParts) > 0:
			s.State += ", in parts; see files.json"
		case f.State == conversation.AttachmentExpected:
			s.State += ", not fetched yet"
		default:
			s.State += ", not in the archive: " + string(f.Reason)
		}
		c.Files = append(c.Files, s)
	}
	return c
}

func shown(v version) shownMessage {
	s := shownMessage{
		Author: visible(cmp.Or(v.author.Name, v.author.ID, "System")), Sent: v.sent.UTC().Format("2006-01-02 15:04:05 UTC"),
		Text: visible(v.text), Subject: visible(v.subject),
	}
	switch {
	case v.unclear:
		s.State = "could not be read as a message; see the original"
	case v.deleted != "":
		s.State = "deleted " + visible(v.deleted)
	case v.edited != "":
		s.State = "edited " + visible(v.edited)
	}
	for _, name := range v.attachments {
		s.Attachments = append(s.Attachments, visible(name))
	}
	return s
}

func titleOf(facts conversation.Conversation) string {
	var names []string
	for _, p := range facts.Participants {
		names = append(names, visible(cmp.Or(p.Name, p.ID)))
	}
	if facts.Call != nil && facts.Call.Subject != "" {
		return visible(facts.Call.Subject)
	}
	return cmp.Or(strings.Join(names, ", "), string(facts.Kind))
}

// policyTag lets a page of a package run nothing, fetch nothing and send nothing.
const policyTag = `<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; media-src 'self' file:; base-uri 'none'; form-action 'none'">`

const pageHead = `<!doctype html><html lang="en"><head><meta charset="utf-8">` + policyTag + `<meta name="viewport" content="width=device-width"><title>{{.Title}}</title>
<style>body{font:15px/1.5 sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222;background:#fff}
li{margin:.6rem 0}.m{border:1px solid #ddd;border-radius:6px;padding:.6rem 1rem;margin:.6rem 0}.m pre{white-space:pre-wrap;font:inherit;margin:.3rem 0;overflow-wrap:anywhere}
.s{color:#595959;font-size:13px}.e{border-left:3px solid #ccc;margin:.4rem 0;padding-left:.8rem}table{border-collapse:collapse}td,th{border:1px solid #ddd;padding:.3rem .6rem;text-align:left;vertical-align:top}
@media (prefers-color-scheme:dark){body{color:#eee;background:#1f1f1f}.s{color:#b0b0b0}.m,td,th{border-color:#444}a{color:#8ab4f8}}</style></head><body>`

var transcript = template.Must(template.New("transcript").Parse(pageHead + `<h1>{{.Title}}</h1>
<p class="s">{{.Day}}, conversation {{.ID}}. Made from the originals in this package; where they differ, the originals count.</p>
{{range .Messages}}<div class="m">{{template "one" .}}{{range .Earlier}}<div class="e">{{template "one" .}}</div>{{end}}</div>{{else}}<p>No messages.</p>{{end}}
{{if .Files}}<h2>Files</h2><ul>{{range .Files}}<li>{{if .Link}}<a href="{{.Link}}" download>{{.Name}}</a>{{else}}{{.Name}}{{end}} <span class="s">{{.State}}</span></li>{{end}}</ul>{{end}}</body></html>
{{define "one"}}<strong>{{.Author}}</strong> <span class="s">{{.Sent}}{{if .State}}, {{.State}}{{end}}</span>{{if .Subject}}<div><strong>{{.Subject}}</strong></div>{{end}}<pre>{{.Text}}</pre>{{range .Attachments}}<div class="s">Attachment: {{.}}</div>{{end}}{{end}}`))
