package export

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"steno/shared/conversation"
	"steno/shared/policy"
)

// item is one conversation of a package.
type item struct {
	facts conversation.Conversation
	units []unit
}

// unit is what is proven as one: the batches and files of a chat, or the manifest of a leg.
type unit struct {
	name    string
	objects []object // in the order of their numbers
	total   int      // how many were ever promised
	leg     *conversation.Leg
}

// object is an evidence object that is bound by the log itself.
type object struct {
	seq   int
	name  string
	since time.Time // it was not stored before
	bound bool      // a record of the package binds it
	file  bool      // it is the part of a file
}

// path is where the object's plain bytes stand in the package.
func (o object) path(u unit) string {
	kind := "batch"
	switch {
	case u.leg != nil:
		kind = "manifest"
	case o.file:
		kind = "file"
	}
	return fmt.Sprintf("evidence/%s/%06d-%s.%s", u.name, o.seq, o.name, kind)
}

// gather looks up what an order is about. Facts only: no content is opened.
func (e *Exporter) gather(ctx context.Context, o policy.ExportOrder) ([]item, error) {
	out := make([]item, 0, len(o.Conversations))
	for _, s := range o.Conversations {
		id, err := conversation.ParseID(s)
		if err != nil {
			return nil, failure{"an id that is none of a conversation"}
		}
		slice, err := e.s.Catalog.Slice(ctx, id)
		if err != nil {
			return nil, err
		}
		var it item
		if slice.Revision != "" && slice.Conversation.Call == nil {
			it, err = chat(slice)
		} else {
			it, err = e.call(ctx, id)
		}
		if err != nil {
			return nil, err
		}
		out = append(out, it)
	}
	return out, nil
}

func chat(s conversation.Slice) (item, error) {
	if d := s.Conversation.Disposed; d != nil {
		return item{}, failure{fmt.Sprintf("conversation %s was disposed on %s; the custody event is %s", s.Conversation.ID, d.At.Format(time.DateOnly), d.Event)}
	}
	if len(s.Objects) == 0 {
		return item{}, failure{fmt.Sprintf("nothing of conversation %s is stored", s.Conversation.ID)}
	}
	u := unit{name: string(s.Conversation.ID), total: s.Conversation.Objects}
	for _, o := range s.Objects {
		u.objects = append(u.objects, object{seq: o.Seq, name: o.Name, since: o.ClaimedAt, file: o.File != nil})
	}
	slices.SortFunc(u.objects, func(a, b object) int { return cmp.Compare(a.seq, b.seq) })
	return item{facts: s.Conversation, units: []unit{u}}, nil
}

func (e *Exporter) call(ctx context.Context, id conversation.ID) (item, error) {
	c, err := e.s.Calls.Call(ctx, id.Thread())
	if err != nil {
		return item{}, err
	}
	if c.Revision == "" || c.Conversation.ID != id {
		return item{}, failure{fmt.Sprintf("there is no conversation %s", id)}
	}
	if d := c.Conversation.Disposed; d != nil {
		return item{}, failure{fmt.Sprintf("conversation %s was disposed on %s; the custody event is %s", id, d.At.Format(time.DateOnly), d.Event)}
	}
	if len(c.Legs) == 0 {
		return item{}, failure{fmt.Sprintf("nothing of conversation %s is stored", id)}
	}
	it := item{facts: c.Conversation}
	for _, l := range c.Legs {
		if l.State != conversation.LegSealed || l.Manifest == "" {
			return item{}, failure{fmt.Sprintf("conversation %s still runs, or is not sealed yet", id)}
		}
		it.units = append(it.units, unit{
			name: string(l.Leg), total: 1, leg: &l,
			objects: []object{{name: l.Manifest, since: l.Started}},
		})
	}
	return it, nil
}
