package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/evidence"
)

// FileMode says which attachments a tenant has fetched.
type FileMode string

// The modes.
const (
	FilesOff    FileMode = "off"    // none; messages keep what they say of them
	FilesHosted FileMode = "hosted" // what Teams hosts: images, emoji, code
	FilesAll    FileMode = "all"    // files of SharePoint and OneDrive too
)

// Queue has attachments fetched.
type Queue interface {
	Send(ctx context.Context, id string, body []byte, notBefore time.Time) error
}

// Files is how attachments come to be fetched.
type Files struct {
	Mode     FileMode
	Register conversation.Attachments // in which they are expected
	Queue    Queue                    // of function attachments
}

// ErrDisposed says that a conversation is disposed: nothing of it is fetched any more.
var ErrDisposed = errors.New("the conversation is disposed")

// askFiles has the attachments of messages fetched: each is expected in the register, and then
// asked for by a message on the queue. So one that is never fetched is known, whatever becomes
// of the queue. Those that are expected already are asked for again, since whoever expected them
// may have died; those that have a result are not. It costs one table operation for each, and
// another for one that is known.
func (in *Intake) askFiles(ctx context.Context, w conversation.Window, held []conversation.Message) error {
	files := in.config.Files
	if files.Mode == "" || files.Mode == FilesOff {
		return nil
	}
	for _, m := range held {
		for _, r := range conversation.ReferencesOf(m) {
			if !r.Kind.Elsewhere() || r.Kind.Shared() && files.Mode != FilesAll {
				continue
			}
			ask := conversation.FileAsk{
				Tenant: w.Tenant, Thread: m.Thread, Custodian: w.Custodian, Message: m.Message, Sent: m.Sent,
				External: conversation.FromOutside(m, w.Tenant), Kind: r.Kind, Name: r.Name, Source: r.Source,
			}
			if err := files.ask(ctx, ask); err != nil {
				return fmt.Errorf("ask for an attachment in window %s: %w", w.Key(), err)
			}
		}
	}
	return nil
}

func (f Files) ask(ctx context.Context, ask conversation.FileAsk) error {
	known, err := f.Register.ExpectAttachment(ctx, ask.Expected(time.Now().UTC()))
	if err != nil || known.State != conversation.AttachmentExpected {
		return err
	}
	body, err := conversation.EncodeFileAsk(ask)
	if err != nil {
		return err
	}
	return f.Queue.Send(ctx, ask.MessageID(), body, time.Time{})
}

// Part is a stored part of a file.
type Part struct {
	Object string
	Size   int64
	SHA256 string           // of its bytes, in hex
	Bound  []custody.Object // what the log is to bind of what was done
}

// KeepPart makes sure that a part of a file is in evidence, under the conversation of h. buf
// is the part's bytes behind room free ones (conversation.FrameFile). When it returns nil they
// are durable. A part that is there already, of the same bytes at the same place, is left as
// it is; it may be repeated. ErrLater says that somebody else's unfinished work is in the way,
// ErrDisposed that the conversation is gone.
//
// It costs one query, and where the part is new one transaction and one blob.
func (in *Intake) KeepPart(ctx context.Context, h conversation.FileHeader, buf []byte, room int) (Part, error) {
	want := h.PartOf(buf[room:])
	out := Part{Size: want.Size, SHA256: want.SHA256}
	for range conflicts {
		slice, err := in.sliceOf(ctx, h.Conversation)
		if err != nil {
			return out, err
		}
		if i := slices.IndexFunc(slice.Objects, func(o conversation.Object) bool { return o.File != nil && *o.File == want }); i >= 0 {
			out.Object = slice.Objects[i].Name
			return out, in.complete(ctx, h, slice.Objects[i], buf, room, &out)
		}
		dropped, err := in.expired(ctx, slice, func(f conversation.PartOf) bool {
			return f.Attachment == want.Attachment && f.Part == want.Part
		})
		if err != nil {
			return out, err
		}
		o := conversation.Object{Name: evidence.NewObjectID(), Custodian: h.Custodian, ClaimedAt: time.Now().UTC(), Seq: slice.Conversation.Objects, File: &want}
		claim := conversation.Claim{Conversation: slice.Conversation, Add: &o, Drop: namesOf(dropped)}
		claim.Conversation.Objects++
		err = in.catalog.Claim(ctx, slice, claim)
		if errors.Is(err, conversation.ErrConflict) {
			continue
		}
		if err != nil {
			return out, err
		}
		out.Object, out.Bound = o.Name, append(out.Bound, void(h.Conversation, dropped)...)
		return out, in.putPart(ctx, h, o, buf, room, &out)
	}
	return out, fmt.Errorf("%w: the slice kept changing", ErrLater)
}

func (in *Intake) sliceOf(ctx context.Context, id conversation.ID) (conversation.Slice, error) {
	slice, err := in.catalog.Slice(ctx, id)
	switch {
	case err != nil:
		return slice, err
	case slice.Revision == "":
		return slice, fmt.Errorf("%w: %s", conversation.ErrNoConversation, id)
	case slice.Conversation.Disposed != nil:
		return slice, ErrDisposed
	}
	return slice, nil
}

// complete puts a part that is claimed and not stored yet.
func (in *Intake) complete(ctx context.Context, h conversation.FileHeader, o conversation.Object, buf []byte, room int, out *Part) error {
	exists, err := in.exists(ctx, batchOf(h), o.Name)
	if err != nil || exists {
		return err
	}
	return in.putPart(ctx, h, o, buf, room, out)
}

func (in *Intake) putPart(ctx context.Context, h conversation.FileHeader, o conversation.Object, buf []byte, room int, out *Part) error {
	plain, err := conversation.FrameFile(h, buf, room)
	if err != nil {
		return err
	}
	bound, err := in.fill(ctx, batchOf(h), o, plain)
	out.Bound = append(out.Bound, bound...)
	return err
}

// batchOf is what the storing of batches and parts has in common.
func batchOf(h conversation.FileHeader) conversation.BatchHeader {
	return conversation.BatchHeader{Tenant: h.Tenant, Conversation: h.Conversation, Thread: h.Thread, Custodian: h.Custodian}
}

// expired returns the claims of parts that were never stored and are too old to be. One that
// is not too old yet is ErrLater.
func (in *Intake) expired(ctx context.Context, s conversation.Slice, of func(conversation.PartOf) bool) ([]conversation.Object, error) {
	var out []conversation.Object
	for _, o := range s.Objects {
		if o.File == nil || !of(*o.File) {
			continue
		}
		exists, err := in.exists(ctx, conversation.BatchHeader{Tenant: in.config.Tenant, Conversation: s.Conversation.ID}, o.Name)
		if err != nil {
			return nil, err
		}
		if exists {
			continue
		}
		if time.Since(o.ClaimedAt) < in.config.ClaimLease {
			return nil, ErrLater
		}
		out = append(out, o)
	}
	return out, nil
}

func namesOf(objects []conversation.Object) []string {
	var out []string
	for _, o := range objects {
		out = append(out, o.Name)
	}
	return out
}

// void says to the log that numbers were promised and stay empty.
func void(id conversation.ID, dropped []conversation.Object) []custody.Object {
	var out []custody.Object
	for _, o := range dropped {
		out = append(out, custody.Object{Unit: string(id), Object: o.Name, Seq: o.Seq, Void: true})
	}
	return out
}

// Forsake drops what was promised of an attachment and never stored: whoever fetches it has
// given up. Parts that are stored stay evidence. It costs one query, one operation for each part
// and, where there is something to drop, a transaction and an event.
func (in *Intake) Forsake(ctx context.Context, id conversation.ID, attachment conversation.AttachmentID) error {
	for range conflicts {
		slice, err := in.sliceOf(ctx, id)
		if err != nil {
			return err
		}
		dropped, err := in.expired(ctx, slice, func(f conversation.PartOf) bool { return f.Attachment == attachment })
		if err != nil || len(dropped) == 0 {
			return err
		}
		dropped = dropped[:min(len(dropped), maxDropped)]
		err = in.catalog.Claim(ctx, slice, conversation.Claim{Conversation: slice.Conversation, Drop: namesOf(dropped)})
		if errors.Is(err, conversation.ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		return in.Bind(ctx, string(id), void(id, dropped))
	}
	return fmt.Errorf("%w: the slice kept changing", ErrLater)
}

// maxDropped is how many claims one transaction drops; a writer dies with one at most.
const maxDropped = 64

// Bind puts the digests of stored parts into the custody trail, and so into its log. Parts of
// a run that dies before it, function fixity finds and binds.
func (in *Intake) Bind(ctx context.Context, item string, bound []custody.Object) error {
	for part := range slices.Chunk(bound, custody.MaxObjects) {
		if _, err := in.trail.Append(ctx, custody.Event{
			Tenant: in.config.Tenant, Action: custody.Sealed, System: in.config.System, Item: item, Objects: part,
		}); err != nil {
			return fmt.Errorf("bind %d parts of files: %w", len(part), err)
		}
	}
	return nil
}
