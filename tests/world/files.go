package world

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"

	"steno/shared/conversation"
	"steno/shared/teams"
	"steno/tests/sim"
)

// FilesReport is how attachments in an archive compare with the tenant.
type FilesReport struct {
	Expected  int            `json:"expected"` // what archived messages point at
	Fetched   int            `json:"fetched"`
	Bytes     int64          `json:"bytes"`
	Gaps      map[string]int `json:"gaps"` // by reason
	Rules     map[string]int `json:"rules"`
	Missing   int            `json:"missing"`   // neither fetched nor a gap
	Wrong     int            `json:"wrong"`     // fetched with other bytes than those at sending time
	Misjudged int            `json:"misjudged"` // a gap with another reason than there is, or where there is none
	Leaked    int            `json:"leakedTokens"`
	Faults    []string       `json:"examples,omitempty"` // of what is wrong
}

// OK reports whether every attachment is what the tenant says.
func (r FilesReport) OK() bool {
	return r.Expected > 0 && r.Fetched > 0 && r.Missing+r.Wrong+r.Misjudged+r.Leaked == 0
}

func (r *FilesReport) fault(count *int, format string, args ...any) {
	*count++
	if len(r.Faults) < 5 {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// filePart is one evidence object of a file.
type filePart struct {
	header conversation.FileHeader
	body   []byte
}

// addPart takes note of a part.
func (c *Contents) addPart(o conversation.Object, plain []byte) error {
	h, body, err := conversation.DecodeFile(plain)
	if err != nil {
		return fmt.Errorf("object %s: %w", o.Name, err)
	}
	if h.PartOf(body) != *o.File {
		return fmt.Errorf("object %s is not the part that its row lists", o.Name)
	}
	if c.parts == nil {
		c.parts = map[string]filePart{}
	}
	c.parts[o.Name] = filePart{h, bytes.Clone(body)}
	return nil
}

// File puts a file together from its parts.
func (c *Contents) File(a conversation.Attachment) ([]byte, error) {
	last, ok := c.parts[a.Object]
	if !ok || last.header.Whole == nil {
		return nil, fmt.Errorf("attachment %s: its last part is not there", a.ID)
	}
	var out []byte
	for _, p := range last.header.Whole.Parts {
		out = append(out, c.parts[p.Object].body...)
	}
	out = append(out, last.body...)
	if sum := fmt.Sprintf("%x", sha256.Sum256(out)); sum != a.SHA256 || sum != last.header.Whole.SHA256 || int64(len(out)) != a.Size {
		return nil, fmt.Errorf("attachment %s: its parts are not the file", a.ID)
	}
	return out, nil
}

// CompareFiles holds the attachments of an archive against the tenant: everything that an
// archived message points at is there with the bytes that it had when the message was sent,
// or a gap with the reason that there is.
func (w *World) CompareFiles(got Contents) FilesReport {
	r := FilesReport{Gaps: map[string]int{}, Rules: map[string]int{}, Leaked: w.Tenant.LeakedTokens()}
	known := map[conversation.AttachmentID]conversation.Attachment{}
	for _, a := range got.Attachments {
		known[a.ID] = a
	}
	deleted := map[string]bool{}
	for _, v := range w.Tenant.History() {
		if bytes.Contains(v.Bytes, []byte(`"deletedDateTime":"`)) {
			deleted[string(v.Thread)+" "+v.MessageID] = true
		}
	}
	seen := map[conversation.AttachmentID]bool{}
	for _, item := range got.Items {
		for _, ref := range conversation.ReferencesOf(item.Message) {
			if !ref.Kind.Elsewhere() || seen[ref.ID] {
				continue
			}
			seen[ref.ID] = true
			r.Expected++
			a, ok := known[ref.ID]
			if !ok || a.State == conversation.AttachmentExpected {
				r.fault(&r.Missing, "%s of message %s", ref.Kind, item.Message.Message)
				continue
			}
			gone := deleted[string(item.Message.Thread)+" "+string(item.Message.Message)]
			w.judgeFile(&r, &got, a, item.Message, gone)
		}
	}
	return r
}

// judgeFile compares one result. Content of a message that was deleted meanwhile may be gone.
func (w *World) judgeFile(r *FilesReport, got *Contents, a conversation.Attachment, m conversation.Message, deleted bool) {
	want, reason := w.truth(a, m)
	if a.State == conversation.AttachmentGap {
		r.Gaps[string(a.Reason)]++
		if a.Reason != reason && (!deleted || a.Kind.Shared() || a.Reason != conversation.GapGone) {
			r.fault(&r.Misjudged, "%s of message %s is %s, want %q", a.Kind, m.Message, a.Reason, reason)
		}
		return
	}
	r.Fetched++
	r.Bytes += a.Size
	r.Rules[string(a.Rule)]++
	b, err := got.File(a)
	switch {
	case err != nil:
		r.fault(&r.Wrong, "%v", err)
	case reason != "":
		r.fault(&r.Misjudged, "%s of message %s was fetched, and is %s", a.Kind, m.Message, reason)
	case !bytes.Equal(b, want):
		r.fault(&r.Wrong, "%s of message %s: %d bytes by rule %s, want %d", a.Kind, m.Message, len(b), a.Rule, len(want))
	}
}

// truth is what the tenant says of an attachment.
func (w *World) truth(a conversation.Attachment, m conversation.Message) (want []byte, reason conversation.GapReason) {
	if !a.Kind.Shared() {
		if u, err := url.Parse(a.Source); err != nil || u.Host != "graph.microsoft.com" || !strings.Contains(u.Path, "/hostedContents/") {
			return nil, conversation.GapForeignHost
		}
		return sim.HostedTruth(a.Source), ""
	}
	f, ok := w.Tenant.FileTruth(a.Source, m.Sent)
	if !ok {
		return nil, conversation.GapGone
	}
	outside := conversation.FromOutside(m, teams.TenantID(w.Tenant.ID()))
	return f.Bytes, map[sim.FileFate]conversation.GapReason{
		sim.FileServed: "", sim.FileGone: either(outside, conversation.GapExternal, conversation.GapGone),
		sim.FileForbidden: either(outside, conversation.GapExternal, conversation.GapForbidden), sim.FileExternal: conversation.GapExternal,
		sim.FileLocked: conversation.GapProtected, sim.FileAstray: conversation.GapForeignHost, sim.FileEndless: conversation.GapTooLarge,
	}[f.Fate]
}

func either(first bool, a, b conversation.GapReason) conversation.GapReason {
	if first {
		return a
	}
	return b
}
