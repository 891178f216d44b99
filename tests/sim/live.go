package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// rememberedMessages is how many of the newest messages live traffic may edit, delete or react to.
const rememberedMessages = 256

func (t *Tenant) remember(m *message) {
	if len(t.recent) == rememberedMessages {
		t.recent = slices.Delete(t.recent, 0, rememberedMessages/2)
	}
	t.recent = append(t.recent, m)
}

// drawMessage sends one message into th: mostly text by a member, sometimes a bot's, sometimes a system event.
func (t *Tenant) drawMessage(r *rand.Rand, th *thread, at int64) *message {
	at = max(at, th.last+1)
	if th.kind != OneOnOne && chance(r, 1, 40) {
		if m := t.drawEvent(r, th, at); m != nil {
			return m
		}
	}
	from := t.dir.byID[pick(r, th.roster)]
	d := draft{style: int(mix(string(th.id), at) % escapeStyles), nameless: chance(r, 1, 5)}
	d.content = drawText(r, 20)
	switch r.IntN(16) {
	case 0, 1, 2:
		d.plain = true
	case 3:
		d.content = "<div>\n<div itemprop=\"copy-paste-block\">" + d.content + "&nbsp;" + drawText(r, 30) + "</div>\n</div>"
	case 4:
		d.content = "<p>" + d.content + "</p><ul><li>" + drawText(r, 8) + "</li><li><b>" + drawText(r, 4) + "</b></li></ul><p>" + drawText(r, 45) + "</p>"
	default:
		d.content = "<p>" + d.content + "</p>"
	}
	if !d.plain {
		t.drawExtras(r, th, &d)
	}
	if th.kind.IsChannel() && len(th.list) > 0 && chance(r, 2, 3) {
		if root := pick(r, th.list[max(0, len(th.list)-8):]); !root.system {
			d.replyTo = root.root
		}
	} else if th.kind.IsChannel() && chance(r, 1, 3) {
		d.subject = drawTopic(r)
	}
	return t.post(th, from, d, at, th.roster)
}

func (t *Tenant) drawExtras(r *rand.Rand, th *thread, d *draft) {
	if chance(r, 1, 80) {
		d.content += pick(r, hostile)
	}
	if chance(r, 1, 12) {
		d.mentions = append(d.mentions, t.dir.byID[pick(r, th.roster)])
	}
	if chance(r, 1, 25) {
		d.files = append(d.files, pick(r, []string{"term sheet.pdf", "P&L 2026.xlsx", "Überblick.docx"}))
	}
	d.image = chance(r, 1, 40)
	d.violation = chance(r, 1, 300)
	d.bot = th.kind != OneOnOne && chance(r, 1, 50)
	if chance(r, 1, 60) {
		d.importance = pick(r, []string{"high", "urgent"})
	}
}

// drawEvent makes a system event, or nothing if the one drawn does not fit.
func (t *Tenant) drawEvent(r *rand.Rand, th *thread, at int64) *message {
	by := th.roster[0]
	event := func(kind string, detail map[string]any) *message {
		return t.post(th, nil, draft{event: kind, detail: detail, initiator: by}, at, th.roster)
	}
	if th.kind == Meeting {
		if th.call == "" {
			th.call = drawGUID(r)
			return event("callStartedEventMessageDetail", map[string]any{"callId": th.call, "callEventType": "meeting"})
		}
		id := th.call
		th.call = ""
		var in []any
		for _, p := range th.roster {
			in = append(in, map[string]any{"participant": userSet(t.dir.byID[p], true)})
		}
		return event("callEndedEventMessageDetail", map[string]any{
			"callId": id, "callEventType": "meeting", "callDuration": fmt.Sprintf("PT%dM%dS", r.IntN(60), r.IntN(60)), "callParticipants": in,
		})
	}
	if th.kind != GroupChat {
		return nil
	}
	if chance(r, 1, 3) {
		th.topic, th.updated = drawTopic(r), at
		return event("chatRenamedEventMessageDetail", map[string]any{"chatDisplayName": th.topic})
	}
	if len(th.roster) > 3 && chance(r, 1, 2) {
		t.rosterEvent(th, t.dir.byID[th.roster[1+r.IntN(len(th.roster)-1)]], false, at)
		return th.list[len(th.list)-1]
	}
	// Only somebody like those who are there may join, so that a conversation outside the scope stays outside it.
	like := t.dir.people
	if t.dir.isPrivate(th.roster) {
		like = t.dir.private
	}
	p := pick(r, like)
	if _, gone := t.dir.removed[p.ID]; gone || p.UserType != "Member" || slices.Contains(th.roster, p.ID) {
		return nil
	}
	t.rosterEvent(th, p, true, at)
	return th.list[len(th.list)-1]
}

func (d *directory) isPrivate(roster []PersonID) bool {
	for _, id := range roster {
		if !slices.ContainsFunc(d.private, func(p *Person) bool { return p.ID == id }) {
			return false
		}
	}
	return true
}

// drawChanges gives some messages of the history a past of their own: later versions, all before the tenant's start.
func (t *Tenant) drawChanges(r *rand.Rand, m *message) {
	at := m.id
	later := func() bool {
		at += 1 + int64(r.ExpFloat64()*float64(20*time.Minute/time.Millisecond))
		return at < t.start.UnixMilli()
	}
	if chance(r, 1, 16) {
		for range 1 + r.IntN(3) {
			if later() {
				t.edit(m, "<p>"+drawText(r, 30)+"</p>", at)
			}
		}
	}
	if chance(r, 1, 12) && later() {
		t.react(m, t.dir.byID[pick(r, m.roster)], pick(r, append(emoji, "like", "heart")), at)
	}
	if chance(r, 1, 50) && later() {
		t.delete(m, at)
	}
}

// Step lets one thing happen in the tenant, drawn from its seed: a message, an edit, a deletion, a reaction, somebody
// joining or leaving a chat.
func (t *Tenant) Step() {
	t.mu.Lock()
	defer t.mu.Unlock()
	r, now := t.live, t.now().UnixMilli()
	what := r.IntN(100)
	if len(t.recent) > 0 && what < 28 {
		if m := pick(r, t.recent); m.changeable() {
			switch {
			case what < 12:
				t.edit(m, "<p>"+drawText(r, 30)+"</p>", now)
			case what < 24:
				t.react(m, t.dir.byID[pick(r, m.roster)], pick(r, emoji), now)
			default:
				t.delete(m, now)
			}
			return
		}
	}
	if th := pick(r, t.threads); len(th.roster) > 0 { // removed users leave conversations empty
		t.remember(t.drawMessage(r, th, now))
	}
}

// Live calls Step perSecond times a second on the real clock until ctx ends, and returns nil then.
func (t *Tenant) Live(ctx context.Context, perSecond float64) error {
	if perSecond <= 0 {
		return fmt.Errorf("run live traffic: a rate of %v a second is not possible", perSecond)
	}
	tick := time.NewTicker(time.Duration(float64(time.Second) / perSecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			t.Step()
		}
	}
}
