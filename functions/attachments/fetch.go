package attachments

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"log/slog"
	"strconv"
	"time"

	"steno/shared/conversation"
	"steno/shared/custody"
	"steno/shared/msgraph"
)

// fetch fetches one attachment and saves the result.
func (f *Fetcher) fetch(ctx context.Context, ask *conversation.FileAsk) error {
	d := &download{Fetcher: f, ask: ask, sum: sha256.New()}
	d.head = conversation.FileHeader{
		Tenant: ask.Tenant, Conversation: ask.Conversation(), Thread: ask.Thread, Custodian: ask.Custodian, Message: ask.Message, Sent: ask.Sent,
		Attachment: ask.ID(), Kind: ask.Kind, Name: ask.Name, Source: ask.Source,
	}
	open := d.openHosted
	if ask.Kind.Shared() {
		open = d.openShared
	}
	content, err := open(ctx)
	if err != nil {
		return err
	}
	err = d.keep(ctx, content)
	// What is stored is bound, whatever became of the rest: nobody else knows it.
	bindCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), sendTimeout)
	defer cancel()
	if err := errors.Join(content.Close(), err, f.keeper.Bind(bindCtx, string(d.head.Conversation), d.bound)); err != nil {
		return d.stopped(ctx, err)
	}
	a := ask.Expected(time.Now().UTC())
	a.State, a.Object, a.Parts, a.Size, a.SHA256, a.Rule = conversation.AttachmentFetched, d.last, len(d.parts), d.size, d.hex(), d.head.Rule
	if err := f.catalog.SaveAttachment(ctx, a); err != nil {
		return err
	}
	f.log.InfoContext(ctx, "attachment fetched", slog.String("attachment", string(a.ID)), slog.Int64("bytes", a.Size), slog.Int("parts", a.Parts), slog.String("rule", string(a.Rule)))
	return nil
}

// download is one attachment on its way.
type download struct {
	*Fetcher
	ask   *conversation.FileAsk
	head  conversation.FileHeader
	sum   hash.Hash
	check quickXor
	size  int64
	parts []conversation.FilePiece // those stored, the last included
	last  string                   // object of the last one
	bound []custody.Object
	key   string // what the bytes are of; see FileResume
	// reached is how far a next run could go on from.
	reached *conversation.FileResume
}

func (d *download) hex() string { return hex.EncodeToString(d.sum.Sum(nil)) }

// openHosted opens content that Teams hosts, when it is its turn.
func (d *download) openHosted(ctx context.Context) (*msgraph.Content, error) {
	if _, err := d.source.HostedLink(d.ask.Source); err != nil {
		return nil, blame(d.ask, err) // it is not asked, so it needs no turn
	}
	if d.ask.Slot.IsZero() {
		at, err := d.slots.Reserve(ctx, d.head.Conversation.Thread())
		if err != nil {
			return nil, err
		}
		d.ask.Slot = at
	}
	wait := time.Until(d.ask.Slot)
	if wait > patience {
		return nil, errTurn
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	content, err := d.source.Hosted(ctx, d.ask.Source)
	if err != nil {
		return nil, blame(d.ask, err)
	}
	d.head.Rule, d.head.RequestID = conversation.RuleHosted, content.RequestID
	return content, nil
}

// openShared opens the version of a file that was current when the message was sent.
func (d *download) openShared(ctx context.Context) (*msgraph.Content, error) {
	item, err := d.source.Item(ctx, d.ask.Source)
	if err != nil {
		return nil, blame(d.ask, err)
	}
	var versions []msgraph.Version
	if item.Modified.After(d.ask.Sent) {
		if versions, err = d.source.Versions(ctx, item); err != nil {
			return nil, blame(d.ask, err)
		}
	}
	version, rule := choose(item, versions, d.ask.Sent)
	d.head.Rule = rule
	d.head.Item = &conversation.FileItem{
		Drive: item.Drive, Item: item.ID, ETag: item.ETag, CTag: item.CTag, Version: version.ID, Modified: version.Modified, Size: version.Size,
	}
	if version.ID == "" {
		d.head.Item.QuickXorHash = item.QuickXorHash // of earlier versions Graph has none
	}
	if version.Size > d.c.Largest {
		return nil, gap{conversation.GapTooLarge}
	}
	d.key = item.Drive + " " + item.ID + " " + item.CTag + " " + version.ID + " " + strconv.Itoa(d.c.Part)
	from, err := d.resume(ctx)
	if err != nil {
		return nil, err
	}
	content, err := d.source.Content(ctx, item, version.ID, from)
	if err != nil {
		return nil, blame(d.ask, err)
	}
	if content.From != from {
		d.forget() // it sends the whole of it
	}
	d.head.RequestID = content.RequestID
	return content, nil
}

// choose picks the version of a file that was current at a time: the last that is not later.
// The zero Version is the current state.
func choose(item msgraph.Item, versions []msgraph.Version, at time.Time) (msgraph.Version, conversation.VersionRule) {
	now := msgraph.Version{Modified: item.Modified, Size: item.Size}
	if !item.Modified.After(at) {
		return now, conversation.RuleCurrent
	}
	var best msgraph.Version
	for _, v := range versions {
		if !v.Modified.After(at) && v.Modified.After(best.Modified) {
			best = v
		}
	}
	if best.ID == "" {
		return now, conversation.RuleLater
	}
	return best, conversation.RuleAtSending
}

// headRoom is what is left free before a part for its header. That of the last part of a
// large file is longer, and costs a copy.
const headRoom = 16 << 10

// keep stores the content part by part.
func (d *download) keep(ctx context.Context, content io.Reader) error {
	buf := make([]byte, headRoom+d.c.Part)
	var carried [1]byte // the byte that told that a part was not the last
	n := 0
	for {
		copy(buf[headRoom:], carried[:n])
		read, err := fillUp(content, buf[headRoom+n:])
		n += read
		last := err == io.EOF
		if err != nil && !last {
			return blame(d.ask, err)
		}
		body := buf[headRoom : headRoom+n]
		if d.size+int64(n) > d.c.Largest {
			return gap{conversation.GapTooLarge}
		}
		n = 0
		if !last {
			_, err := fillUp(content, carried[:])
			switch {
			case err == io.EOF:
				last = true
			case err != nil:
				return blame(d.ask, err)
			default:
				n = 1
			}
		}
		if err := d.part(ctx, buf[:headRoom+len(body)], last); err != nil || last {
			return err
		}
	}
}

// fillUp reads until b is full. Its error is io.EOF where the source ended regularly, and
// another where it broke off, which io.ReadFull does not tell apart.
func fillUp(r io.Reader, b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		var read int
		read, err = r.Read(b[n:])
		n += read
	}
	if n == len(b) && err == io.EOF {
		return n, nil // told with the last bytes: the next read says it again
	}
	return n, err
}

// part stores one part.
func (d *download) part(ctx context.Context, buf []byte, last bool) error {
	body := buf[headRoom:]
	d.sum.Write(body)
	_, _ = d.check.Write(body) // neither fails
	h := d.head
	h.Part, h.Offset, h.FetchedAt = len(d.parts), d.size, time.Now().UTC()
	d.size += int64(len(body))
	if last {
		item, err := d.verified()
		if err != nil {
			return err
		}
		h.Item = item
		h.Whole = &conversation.WholeFile{Size: d.size, SHA256: d.hex(), Parts: append([]conversation.FilePiece{}, d.parts...)}
	}
	kept, err := d.keeper.KeepPart(ctx, h, buf, headRoom)
	d.bound = append(d.bound, kept.Bound...)
	if err != nil {
		return err
	}
	d.parts = append(d.parts, conversation.FilePiece{Object: kept.Object, Size: kept.Size, SHA256: kept.SHA256})
	d.last = kept.Object
	if last || d.key == "" {
		return nil
	}
	return d.reach()
}

// verified compares what came with what Graph says of that version of a file: its size, and
// of the current one its checksum.
func (d *download) verified() (*conversation.FileItem, error) {
	if d.head.Item == nil {
		return nil, nil
	}
	item := *d.head.Item
	if item.QuickXorHash == "" {
		if item.Size != d.size {
			return nil, unread{fmt.Errorf("%d bytes came of %d", d.size, item.Size), conversation.GapAltered}
		}
		return &item, nil
	}
	if item.QuickXorHash != d.check.sum() {
		return nil, unread{errors.New("the bytes do not have Microsoft's checksum"), conversation.GapAltered}
	}
	item.Checked = true
	return &item, nil
}

// stopped turns the end of a run's time into a place to go on from, if it got any further.
func (d *download) stopped(ctx context.Context, err error) error {
	var g gap
	if ctx.Err() == nil || errors.As(err, &g) || d.reached == nil {
		return err
	}
	d.ask.Resume = d.reached
	return errTime
}

// reach takes note of what a next run needs to go on behind the last part.
func (d *download) reach() error {
	m, ok := d.sum.(encoding.BinaryMarshaler)
	if !ok {
		return errors.New("the state of SHA-256 cannot be kept") // that of the standard library can
	}
	sum, err := m.MarshalBinary()
	if err != nil {
		return err
	}
	check, err := d.check.MarshalBinary()
	if err != nil {
		return err
	}
	d.reached = &conversation.FileResume{Version: d.key, Parts: len(d.parts), Sum: sum, Check: check}
	return nil
}

// resume goes on where an earlier run stopped, if that read the same version of the file and
// its parts are known, and returns the offset. Otherwise it begins anew.
func (d *download) resume(ctx context.Context) (from int64, err error) {
	r := d.ask.Resume
	if r == nil || r.Version != d.key {
		return 0, nil
	}
	s, err := d.catalog.Slice(ctx, d.head.Conversation)
	if err != nil {
		return 0, err
	}
	at := map[int][]conversation.FilePiece{}
	for _, o := range s.Objects {
		if p := o.File; p != nil && p.Attachment == d.head.Attachment && p.Whole == "" && p.Size == int64(d.c.Part) {
			at[p.Part] = append(at[p.Part], conversation.FilePiece{Object: o.Name, Size: p.Size, SHA256: p.SHA256})
		}
	}
	var parts []conversation.FilePiece
	for i := range r.Parts {
		if len(at[i]) != 1 {
			return 0, nil // of another version too, and nothing tells them apart
		}
		parts = append(parts, at[i][0])
	}
	u, ok := d.sum.(encoding.BinaryUnmarshaler)
	if !ok || u.UnmarshalBinary(r.Sum) != nil || d.check.UnmarshalBinary(r.Check) != nil {
		d.forget()
		return 0, nil
	}
	d.parts, d.size, d.last = parts, int64(len(parts))*int64(d.c.Part), parts[len(parts)-1].Object
	if d.check.n != uint64(d.size) {
		d.forget()
	}
	return d.size, nil
}

// forget begins anew.
func (d *download) forget() {
	d.sum.Reset()
	d.check, d.parts, d.size, d.last = quickXor{}, nil, 0, ""
}
