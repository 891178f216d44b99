package export

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/policy"
)

// attached collects the parts of files that an item's evidence holds.
type attached struct {
	paths map[string]string // by object, in the package
	whole []wholeFile
}

// wholeFile is a file whose last part was met.
type wholeFile struct {
	header conversation.FileHeader
	last   string // its object
}

func (f *attached) add(object, at string, plain []byte) error {
	h, _, err := conversation.DecodeFile(plain)
	if err != nil {
		return fmt.Errorf("object %s: %w", object, err)
	}
	if f.paths == nil {
		f.paths = map[string]string{}
	}
	f.paths[object] = at
	if h.Whole != nil {
		f.whole = append(f.whole, wholeFile{h, object})
	}
	return nil
}

// attachedFile is an attachment in files.json of a chat.
type attachedFile struct {
	conversation.Attachment
	// Path is where the file stands in the package, empty if it is too large to stand there
	// put together; EvidenceParts are its parts, in order, each behind two lines of its own.
	Path          string   `json:"path,omitempty"`
	EvidenceParts []string `json:"evidenceParts,omitempty"`
}

// writeFiles writes the files of a chat under names that no program stumbles over, and
// the list of all attachments, those that could not be fetched included.
func (e *Exporter) writeFiles(ctx context.Context, a *archive, o policy.ExportOrder, n int, it item, files *attached) ([]attachedFile, error) {
	register, err := e.s.Attachments.Attachments(ctx, it.facts.ID)
	if err != nil {
		return nil, err
	}
	type place struct {
		path string
		from []string
	}
	where := map[string]place{} // by the last object
	var sources []string
	for i, f := range files.whole {
		from, err := files.partsOf(f)
		if err != nil {
			return nil, fmt.Errorf("a file of %s: %w", it.facts.ID, err)
		}
		sources = append(sources, from...)
		if f.header.Whole.Size > e.c.LargestCopy {
			where[f.last] = place{"", from}
			continue
		}
		name := fmt.Sprintf("chat/%06d/files/%04d-%.12s%s", n, i+1, f.header.Whole.SHA256, conversation.SafeExtension(f.header.Name))
		if err := e.writeFile(ctx, a, o, string(it.facts.ID), name, f, from); err != nil {
			return nil, err
		}
		where[f.last] = place{name, from}
	}
	var list []attachedFile
	for _, r := range register {
		list = append(list, attachedFile{r, where[r.Object].path, where[r.Object].from})
	}
	if len(list) == 0 {
		return nil, nil
	}
	slices.SortFunc(list, func(a, b attachedFile) int {
		return cmp.Or(cmp.Compare(a.Message, b.Message), cmp.Compare(a.ID, b.ID))
	})
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return nil, err
	}
	return list, a.derive(fmt.Sprintf("chat/%06d/files.json", n), "register of attachments", sources, write(b))
}

// partsOf lists where the parts of a file stand in the package.
func (f *attached) partsOf(w wholeFile) (from []string, err error) {
	for _, object := range w.objects() {
		if f.paths[object] == "" {
			return nil, fmt.Errorf("part %s is not in the package: %w", object, custody.ErrProof)
		}
		from = append(from, f.paths[object])
	}
	return from, nil
}

// objects lists the parts of a file in order.
func (w wholeFile) objects() []string {
	var out []string
	for _, p := range w.header.Whole.Parts {
		out = append(out, p.Object)
	}
	return append(out, w.last)
}

// writeFile puts a file together from its parts, one in memory at a time.
func (e *Exporter) writeFile(ctx context.Context, a *archive, o policy.ExportOrder, unit, name string, f wholeFile, from []string) error {
	a.derived = append(a.derived, derived{From: from, Path: name, Tool: "parts of a file, put together"})
	r := &reader{e: e, order: o, unit: unit}
	err := a.create(name, func(w io.Writer) error {
		for _, object := range f.objects() {
			plain, _, err := r.read(ctx, object, maxBatch)
			if err != nil {
				return err
			}
			_, body, err := conversation.DecodeFile(plain)
			if err != nil {
				return fmt.Errorf("object %s: %w", object, err)
			}
			if _, err := io.Copy(w, bytes.NewReader(body)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if sum := a.sums[name]; fmt.Sprintf("%x", sum[:]) != f.header.Whole.SHA256 {
		return fmt.Errorf("a file of %s is not what its last part says: %w", unit, custody.ErrProof)
	}
	return nil
}
