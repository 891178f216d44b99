package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
)

// FileCatalog is where PutFile claims and registers.
type FileCatalog interface {
	conversation.Attachments
	Slice(ctx context.Context, id conversation.ID) (conversation.Slice, error)
	Claim(ctx context.Context, was conversation.Slice, c conversation.Claim) error
}

// PutFile puts a file into evidence as function attachments does, in parts of that many bytes,
// under the conversation of h, which exists. It returns the result, which the register has too,
// and what binds the parts.
func PutFile(ctx context.Context, store *evidence.Store, catalog FileCatalog, h conversation.FileHeader, part int, content []byte, at time.Time) (conversation.Attachment, []custody.Object, error) {
	h.Attachment, h.FetchedAt = conversation.AttachmentIDOf(h.Thread, h.Message, h.Kind, h.Source), at
	whole := sha256.Sum256(content)
	a := conversation.Attachment{
		ID: h.Attachment, Conversation: h.Conversation, Message: h.Message, Custodian: h.Custodian, Kind: h.Kind, Name: h.Name, Source: h.Source,
		State: conversation.AttachmentFetched, Size: int64(len(content)), SHA256: hex.EncodeToString(whole[:]), Rule: h.Rule, At: at,
	}
	var pieces []conversation.FilePiece
	var bound []custody.Object
	for rest := content; a.Object == ""; {
		body := rest[:min(part, len(rest))]
		rest = rest[len(body):]
		h.Part, h.Offset = len(pieces), a.Size-int64(len(rest)+len(body))
		if len(rest) == 0 {
			h.Whole = &conversation.WholeFile{Size: a.Size, SHA256: a.SHA256, Parts: pieces}
		}
		o, err := putPart(ctx, store, catalog, h, body, at)
		if err != nil {
			return a, nil, fmt.Errorf("put part %d: %w", h.Part, err)
		}
		bound = append(bound, o)
		pieces = append(pieces, conversation.FilePiece{Object: o.Object, Size: int64(len(body)), SHA256: h.PartOf(body).SHA256})
		if h.Whole != nil {
			a.Object, a.Parts = o.Object, len(pieces)
		}
	}
	return a, bound, catalog.SaveAttachment(ctx, a)
}

func putPart(ctx context.Context, store *evidence.Store, catalog FileCatalog, h conversation.FileHeader, body []byte, at time.Time) (custody.Object, error) {
	was, err := catalog.Slice(ctx, h.Conversation)
	if err != nil {
		return custody.Object{}, err
	}
	file := h.PartOf(body)
	o := conversation.Object{Name: evidence.NewObjectID(), Custodian: h.Custodian, ClaimedAt: at, Seq: was.Conversation.Objects, File: &file}
	claim := conversation.Claim{Conversation: was.Conversation, Add: &o}
	claim.Conversation.Objects++
	if err := catalog.Claim(ctx, was, claim); err != nil {
		return custody.Object{}, err
	}
	plain, err := conversation.FrameFile(h, body, 0)
	if err != nil {
		return custody.Object{}, err
	}
	sealed, err := store.Seal(ctx, evidence.Ref{Tenant: h.Tenant, Unit: string(h.Conversation), Object: o.Name}, plain)
	if err != nil {
		return custody.Object{}, err
	}
	return custody.Object{
		Unit: string(h.Conversation), Object: o.Name, Seq: o.Seq, SHA256: hex.EncodeToString(sealed.Ciphertext[:]), Commit: hex.EncodeToString(sealed.Commit[:]),
	}, store.Put(ctx, sealed)
}
