package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"

	"steno/shared/teams"
)

// screenSocket is the gateway's socket for a shared screen; those for cameras are v0, v1, ….
const screenSocket = "vbss"

// subscribe makes the video sockets carry whoever shows something: the recorded user
// first, then those who showed something before, then by participant. A socket keeps its
// source as long as that sends.
func (g *leg) subscribe() {
	if g.decision.AudioOnly {
		return
	}
	var cameras []string
	screen := false
	for _, t := range g.call.Tracks {
		switch {
		case t.Track == screenSocket:
			screen = true
		case strings.HasPrefix(t.Track, "v"):
			cameras = append(cameras, t.Track)
		}
	}
	if len(cameras) == 0 && !screen {
		return
	}
	want := assign(cameras, g.sockets, g.sending(teams.MediaVideo))
	if screen {
		for socket, source := range assign([]string{screenSocket}, g.sockets, g.sending(teams.MediaScreen)) {
			want[socket] = source
		}
	}
	changed := map[string]teams.SourceID{}
	for socket, source := range want {
		if g.sockets[socket] != source {
			changed[socket] = source
		}
	}
	if len(changed) == 0 {
		return
	}
	g.sockets, g.busy = want, true
	call := *g.call
	g.step(gatewayTimeout, func(ctx context.Context) error {
		var faults []error
		for socket, source := range changed {
			faults = append(faults, g.legs.c.Gateway.subscribe(ctx, g.inv.Call, call, socket, source))
		}
		return errors.Join(faults...)
	}, func(err error) {
		g.busy = false
		if err != nil && !g.ending {
			g.log.Error("video not subscribed", slog.String("alarm", "video"), slog.String("cause", err.Error()))
		}
	})
}

// sending lists the sources of a kind that send, the recorded user's first.
func (g *leg) sending(kind teams.MediaKind) []teams.SourceID {
	people := slices.Clone(g.present)
	slices.SortStableFunc(people, func(a, b teams.Participant) int {
		switch g.inv.Recorded.ID {
		case a.ID:
			return -1
		case b.ID:
			return 1
		}
		return cmp.Compare(a.ID, b.ID)
	})
	var out []teams.SourceID
	for _, p := range people {
		for _, s := range p.Streams {
			sends := s.Direction == "sendReceive" || s.Direction == "sendOnly"
			if s.Kind == kind && sends && s.Source != teams.SourceUnknown && s.Source != teams.SourceNone && !p.Lobby {
				out = append(out, s.Source)
			}
		}
	}
	return out
}

// assign gives each socket a source. Sources that have a socket keep it; the others take
// free ones in order, as far as there are any. A socket without a source gets 0.
func assign(sockets []string, now map[string]teams.SourceID, sources []teams.SourceID) map[string]teams.SourceID {
	out := map[string]teams.SourceID{}
	var free []string
	kept := map[teams.SourceID]bool{}
	for _, socket := range sockets {
		if s := now[socket]; s != teams.SourceUnknown && slices.Contains(sources, s) {
			out[socket] = s
			kept[s] = true
			continue
		}
		out[socket] = teams.SourceUnknown
		free = append(free, socket)
	}
	for _, s := range sources {
		if kept[s] || len(free) == 0 {
			continue
		}
		out[free[0]], free, kept[s] = s, free[1:], true
	}
	return out
}
