package main

import (
	mrand "math/rand/v2"
	"testing"

	"steno/shared/custody"
)

// shape is an intact package, and what is known about it from outside.
type shape struct {
	name   string
	files  map[string][]byte
	c      contents
	log    *custodyLog
	signer signer
	trust  trust
	want   int // exit code with that trust
}

// shapes makes one package of each kind. Each has a log of its own.
func shapes(t testing.TB, seed uint64) []*shape {
	t.Helper()
	rng := mrand.New(mrand.NewPCG(seed, 1))
	s := newSigner(t)
	var out []*shape
	add := func(name string, want int, fill func(m *maker)) *shape {
		log := newLog()
		log.noise(t, rng.IntN(5))
		m := newMaker(t, rng, log, s)
		fill(m)
		files := m.finish()
		sh := &shape{name: name, files: files, c: m.c, log: log, signer: s, trust: trust{key: s.kid(t)}, want: want}
		sh.c.Key = sh.trust.key
		out = append(out, sh)
		return sh
	}
	add("one chat", exitVerified, func(m *maker) { m.conversation("chat", m.chat("chat-20261102", 3)) })
	add("several units", exitVerified, func(m *maker) {
		m.conversation("chat", m.chat("a-20261101", 2), m.chat("a-20261102", 1))
		m.event(custody.Event{Action: custody.Read, Item: "a-20261101"})
		m.conversation("chat", m.chat("b-20261102", 4))
		m.derive("chat/a.html", "evidence/a-20261101/"+m.base("a-20261101", 0))
		m.derive("vcon/a.json")
	})
	add("voids", exitVerified, func(m *maker) {
		first, last := m.add("v-20261102", "batch", 0, m.batch("v")), m.add("v-20261102", "batch", 3, m.batch("v"))
		void := func(seq int) custody.Object {
			return custody.Object{Unit: "v-20261102", Object: m.hex(16), Seq: seq, Void: true}
		}
		m.seal(first, void(1))
		m.seal(void(2), last, custody.Object{Unit: "another-unit", Object: m.hex(16), Seq: 9, SHA256: m.hex(32)})
		m.conversation("chat", unit{Unit: "v-20261102", Objects: 4, Unproven: []string{}})
	})
	add("disposed", exitVerified, func(m *maker) {
		gone := custody.Object{Unit: "d-20261102", Object: m.hex(16), Seq: 1, SHA256: m.hex(32), Commit: m.hex(32)}
		m.seal(m.add("d-20261102", "batch", 0, m.batch("d")), gone)
		m.event(custody.Event{Action: "dispose", Item: "d-20261102", Objects: []custody.Object{gone}})
		m.event(custody.Event{Action: "erase", Item: "whole-20261102"})
		m.event(custody.Event{Action: "dispose", Item: "a-call-20261102"})
		m.conversation("chat", unit{Unit: "d-20261102", Objects: 2, Unproven: []string{}}, unit{Unit: "whole-20261102", Objects: 7, Unproven: []string{}})
		m.c.Conversations = append(m.c.Conversations, conversation{ID: "a-call-20261102", Modality: "call", Units: []unit{{Unit: "leg-gone", Objects: 1, Unproven: []string{}}}})
	})
	add("a call", exitVerified, func(m *maker) {
		m.conversation("call", m.leg("leg-1", 5), m.leg("leg-2", 0))
		m.event(custody.Event{Action: custody.Played, Item: "leg-1"})
		m.derive("media/call.mp4", "evidence/leg-1/"+m.base("leg-1", 0))
	})
	add("unproven", exitUnverified, func(m *maker) {
		u := m.chat("u-20261102", 2)
		late := m.add(u.Unit, "batch", 2, m.batch(u.Unit))
		m.opened = m.opened[:len(m.opened)-1]
		u.Objects, u.Unproven = 3, []string{late.Object}
		m.conversation("chat", u)
	})
	older := add("a kept checkpoint", exitVerified, func(m *maker) {
		m.log.noise(m.t, 9)
		m.conversation("chat", m.chat("k-20261102", 3))
		m.log.noise(m.t, 5)
		m.olders = []int{4, 8, 11}
	})
	older.trust.checkpoint = older.log.at[11].Text()
	older.trust.signature = s.sign(t, older.trust.checkpoint)
	return out
}

// base is the name of a unit's object of that number, without its folder.
func (m *maker) base(unit string, seq int) string {
	for path := range m.files {
		if f := objectForm.FindStringSubmatch(path); f != nil && f[1] == unit && f[2] == "000000" && seq == 0 {
			return path[len("evidence/"+unit+"/"):]
		}
	}
	m.t.Fatalf("unit %s has no object %d", unit, seq)
	return ""
}
