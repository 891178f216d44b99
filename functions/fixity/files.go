package fixity

import (
	"cmp"
	"context"
	"slices"

	"steno/shared/conversation"
	"steno/shared/evidence"
)

// listedAs reports whether the catalog says the same of an object. The bytes of a part of a
// file are not read for it: their digest is the round's.
func (b batch) listedAs(o conversation.Object) bool {
	if b.file == nil || o.File == nil {
		return b.file == nil && o.File == nil && slices.Equal(o.Versions, b.versions) && o.Custodian == b.header.Custodian && cmp.Or(o.Lane, conversation.LaneExport) == b.header.Lane
	}
	whole := ""
	if b.file.Whole != nil {
		whole = b.file.Whole.SHA256
	}
	p := *o.File
	return len(o.Versions) == 0 && o.Custodian == b.file.Custodian && p.Attachment == b.file.Attachment && p.Part == b.file.Part && p.Size == b.size && p.Whole == whole
}

// startsAsFile reports whether an object is the part of a file.
func startsAsFile(o *evidence.Object) (bool, error) {
	head := make([]byte, min(o.Size(), 64))
	if _, err := o.ReadAt(head, 0); err != nil {
		return false, err
	}
	return conversation.IsFilePart(head), nil
}

// compareRegister compares what the register says of fetched attachments with the last parts
// that are stored. It costs one query.
func (r *run) compareRegister(ctx context.Context, id conversation.ID, batches map[string]batch) error {
	list, err := r.s.Catalog.Attachments(ctx, id)
	if err != nil {
		return err
	}
	known := map[conversation.AttachmentID]bool{}
	for _, a := range list {
		if a.State != conversation.AttachmentFetched {
			continue
		}
		known[a.ID] = true
		if a.At.After(r.start.Add(-grace)) {
			continue
		}
		b := batches[a.Object]
		if b.file == nil || b.file.Whole == nil || b.file.Attachment != a.ID || b.file.Message != a.Message || b.file.Whole.SHA256 != a.SHA256 || b.file.Whole.Size != a.Size || b.file.Rule != a.Rule {
			if err := r.alarm(ctx, string(id), a.Object, reasonAltered); err != nil {
				return err
			}
		}
	}
	for object, b := range batches {
		if b.file == nil || b.file.Whole == nil || known[b.file.Attachment] || b.file.FetchedAt.After(r.start.Add(-listed)) {
			continue
		}
		if err := r.alarm(ctx, string(id), object, reasonDropped); err != nil {
			return err
		}
	}
	return nil
}
