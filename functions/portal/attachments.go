package portal

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
)

// attached is something that a message points at, as shown.
type attached struct {
	ID     conversation.AttachmentID   `json:"id"`
	Kind   conversation.AttachmentKind `json:"kind"`
	Name   string                      `json:"name,omitempty"`
	State  string                      `json:"state"` // expected, fetched, gap, message if it stands in the message, unfetched if nobody asked for it
	Reason conversation.GapReason      `json:"reason,omitempty"`
	Size   int64                       `json:"size,omitempty"`
	SHA256 string                      `json:"sha256,omitempty"`
	Rule   conversation.VersionRule    `json:"rule,omitempty"`
	File   string                      `json:"file,omitempty"` // the name under which it is saved
}

// What is shown of attachments that the register does not know.
const (
	stateInMessage = "message"
	stateUnfetched = "unfetched"
)

// fetched reads what became of a conversation's attachments. It costs one query.
func (p *Portal) fetched(ctx context.Context, id conversation.ID) (map[conversation.AttachmentID]conversation.Attachment, error) {
	list, err := p.stores.Attached.Attachments(ctx, id)
	if err != nil {
		return nil, err
	}
	out := make(map[conversation.AttachmentID]conversation.Attachment, len(list))
	for _, a := range list {
		out[a.ID] = a
	}
	return out, nil
}

// attachedAs shows what a message points at with what became of it.
func attachedAs(ref conversation.Reference, fetched map[conversation.AttachmentID]conversation.Attachment) attached {
	a := attached{ID: ref.ID, Kind: ref.Kind, Name: visible(ref.Name), State: stateInMessage}
	if !ref.Kind.Elsewhere() {
		return a
	}
	got, ok := fetched[ref.ID]
	if !ok {
		a.State = stateUnfetched
		return a
	}
	a.State, a.Reason = string(got.State), got.Reason
	if got.State == conversation.AttachmentFetched {
		a.Size, a.SHA256, a.Rule, a.File = got.Size, got.SHA256, got.Rule, savedAs(got)
	}
	return a
}

// savedAs is the name under which an attachment is saved: nothing of it is the sender's but an
// extension that no machine runs.
func savedAs(a conversation.Attachment) string {
	return fmt.Sprintf("attachment-%.12s%s", a.SHA256, conversation.SafeExtension(a.Name))
}

// attachment hands out the bytes of an attachment, in ranges of at most maxRangeReply, as a
// download that no browser will run. What is fetched within one receipt is one event, before
// the first byte.
func (p *Portal) attachment(w http.ResponseWriter, r *http.Request, c caller) error {
	id, err := conversation.ParseAttachmentID(r.PathValue("attachment"))
	if err != nil {
		return errNotFound
	}
	s, err := p.find(r, c)
	if err != nil {
		return err
	}
	a, err := p.stores.Attached.Attachment(r.Context(), s.Conversation.ID, id)
	if errors.Is(err, conversation.ErrNoAttachment) || err == nil && a.State != conversation.AttachmentFetched {
		return errNotFound
	}
	if err != nil {
		return err
	}
	from, n, partial, err := parseRange(r.Header.Values("Range"), a.Size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", a.Size))
		return &problem{Status: http.StatusRequestedRangeNotSatisfiable, Title: "Range not satisfiable", Detail: fmt.Sprintf("One range of at most %d bytes within the file.", maxRangeReply)}
	}
	receipt, err := p.rememberedFor(r.Context(), c, string(s.Conversation.ID)+"/"+string(id), custody.Read, string(s.Conversation.ID), "attachment "+string(id))
	if err != nil {
		return err
	}
	b := make([]byte, n)
	if err := p.readAttachment(r.Context(), a, receipt, b, from); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Accept-Ranges", "bytes")
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store, private")
	h.Set("Content-Disposition", `attachment; filename="`+savedAs(a)+`"`)
	h.Set("Content-Length", strconv.FormatInt(n, 10))
	h.Set("ETag", `"`+a.SHA256+`"`)
	if partial {
		h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+n-1, a.Size))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(b) // the caller is gone if this fails
	return nil
}

// readAttachment reads a stretch of an attachment out of the parts that its last one lists.
func (p *Portal) readAttachment(ctx context.Context, a conversation.Attachment, receipt custody.Receipt, b []byte, from int64) error {
	last, h, body, err := p.openPart(ctx, a, a.Object, receipt)
	if err != nil {
		return err
	}
	if h.Attachment != a.ID || h.Whole == nil || h.Whole.SHA256 != a.SHA256 || h.Whole.Size != a.Size {
		return fmt.Errorf("object %s: %w: it is not what the register lists", a.Object, evidence.ErrCorrupt)
	}
	at := int64(0)
	for i, piece := range h.Whole.Parts {
		if len(b) == 0 {
			return nil
		}
		if end := at + piece.Size; from < end {
			o, ph, off, err := p.openPart(ctx, a, piece.Object, receipt)
			if err != nil {
				return err
			}
			if ph.Attachment != a.ID || ph.Part != i || o.Size()-off != piece.Size {
				return fmt.Errorf("object %s: %w: it is not the part that the file lists", piece.Object, evidence.ErrCorrupt)
			}
			n := min(int64(len(b)), end-from)
			if _, err := o.ReadAt(b[:n], off+from-at); err != nil {
				return fmt.Errorf("object %s: %w", piece.Object, err)
			}
			b, from = b[n:], from+n
		}
		at += piece.Size
	}
	if len(b) == 0 {
		return nil
	}
	if _, err := last.ReadAt(b, body+from-at); err != nil {
		return fmt.Errorf("object %s: %w", a.Object, err)
	}
	return nil
}

// openPart opens a part and returns where its bytes of the file begin.
func (p *Portal) openPart(ctx context.Context, a conversation.Attachment, object string, receipt custody.Receipt) (*evidence.Object, conversation.FileHeader, int64, error) {
	o, err := p.stores.Evidence.Open(ctx, evidence.Ref{Tenant: p.config.Tenant, Unit: string(a.Conversation), Object: object}, receipt)
	if err != nil {
		return nil, conversation.FileHeader{}, 0, err
	}
	h, body, err := conversation.ReadFileHeader(o, o.Size())
	if err != nil {
		return nil, h, 0, fmt.Errorf("object %s: %w: %w", object, evidence.ErrCorrupt, err)
	}
	if h.Tenant != p.config.Tenant || h.Conversation != a.Conversation {
		return nil, h, 0, fmt.Errorf("object %s: %w: it belongs elsewhere", object, evidence.ErrCorrupt)
	}
	return o, h, body, nil
}
