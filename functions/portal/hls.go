package portal

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"steno/shared/conversation"
	"steno/shared/media"
)

// master is the multivariant playlist: the mix, and one audio rendition a lane; with a
// video lane where one was asked for. RFC 8216 section 4.3.4.
func master(lanes []conversation.Lane, video string) (string, error) {
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	b.WriteString("#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"Everybody\",DEFAULT=YES,AUTOSELECT=YES,URI=\"audio/mixed.m3u8\"\n")
	audio := false
	for i, l := range lanes {
		if l.Kind != conversation.AudioTrack {
			continue
		}
		audio = true
		fmt.Fprintf(&b, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"%s\",DEFAULT=NO,AUTOSELECT=NO,URI=\"audio/%s.m3u8\"\n", laneName(l, i), l.ID)
	}
	if !audio && video == "" {
		return "", errNotFound
	}
	if video == "" {
		b.WriteString("#EXT-X-STREAM-INF:BANDWIDTH=48000,CODECS=\"opus\",AUDIO=\"audio\"\naudio/mixed.m3u8\n")
		return b.String(), nil
	}
	kind, id, _ := strings.Cut(video, "/")
	lane, ok := findLane(lanes, conversation.TrackKind(kind), conversation.LaneID(id))
	if !ok || lane.Kind == conversation.AudioTrack {
		return "", errNotFound
	}
	s := lane.Segments[0]
	fmt.Fprintf(&b, "#EXT-X-STREAM-INF:BANDWIDTH=2000000,RESOLUTION=%dx%d,CODECS=\"%s,opus\",AUDIO=\"audio\"\n%s/%s.m3u8\n", s.Width, s.Height, s.Codec, lane.Kind, lane.ID)
	return b.String(), nil
}

// laneName is a lane's name as a quoted string may hold it: RFC 8216 section 4.2 allows
// no quote and no line end. Names must differ within a group, hence the number.
func laneName(l conversation.Lane, i int) string {
	name := "Unknown"
	switch {
	case l.Party != nil && l.Party.Name != "":
		name = l.Party.Name
	case l.Party != nil:
		name = string(l.Party.Kind)
	case l.ID != conversation.LaneUnknown:
		name = "As received"
	}
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == '"' || r == 0x7f {
			return ' '
		}
		return r
	}, name)
	return strconv.Itoa(i+1) + " " + name
}

// mediaPlaylist is the playlist of one lane. Audio lanes cover the whole leg, with
// silence where there is nothing, so all renditions have equal segments; video lanes
// list what there is. A running leg's list grows at its end: RFC 8216 section 4.3.3.5.
func mediaPlaylist(m conversation.Manifest, lanes []conversation.Lane, kind conversation.TrackKind, id conversation.LaneID, ended bool) (string, error) {
	lane, ok := findLane(lanes, kind, id)
	if !ok {
		return "", errNotFound
	}
	var b strings.Builder
	b.WriteString("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:6\n#EXT-X-MEDIA-SEQUENCE:0\n#EXT-X-INDEPENDENT-SEGMENTS\n")
	if ended {
		b.WriteString("#EXT-X-PLAYLIST-TYPE:VOD\n")
	} else {
		b.WriteString("#EXT-X-PLAYLIST-TYPE:EVENT\n")
	}
	var err error
	if kind == conversation.AudioTrack {
		err = listAudio(&b, m, lanes, lane)
	} else {
		err = listVideo(&b, m, lane)
	}
	if err != nil {
		return "", err
	}
	if ended {
		b.WriteString("#EXT-X-ENDLIST\n")
	}
	return b.String(), nil
}

func listAudio(b *strings.Builder, m conversation.Manifest, lanes []conversation.Lane, lane conversation.Lane) error {
	first, last := bounds(lanes)
	if last-first+1 > maxPlaylist {
		return errTooLong
	}
	fmt.Fprintf(b, "#EXT-X-MAP:URI=\"%s/init.mp4\"\n", lane.ID)
	next := int64(-1)
	for i := first; i <= last; i++ {
		start, end := stretch(m, i)
		if next >= 0 && start != next {
			b.WriteString("#EXT-X-DISCONTINUITY\n")
		}
		if next != start {
			wall := m.Epoch.Add(time.Duration(start) * time.Second / media.AudioTimescale)
			fmt.Fprintf(b, "#EXT-X-PROGRAM-DATE-TIME:%s\n", wall.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
		fmt.Fprintf(b, "#EXTINF:%.5f,\n%s/%s.m4s\n", float64(end-start)/media.AudioTimescale, lane.ID, segmentName(m.Bundles[i]))
		next = end
	}
	return nil
}

// bounds are the first and the last bundle that hold audio.
func bounds(lanes []conversation.Lane) (first, last int) {
	first, last = -1, -1
	for _, l := range lanes {
		if l.Kind != conversation.AudioTrack {
			continue
		}
		for _, s := range l.Segments {
			if first < 0 || s.Bundle < first {
				first = s.Bundle
			}
			last = max(last, s.Bundle)
		}
	}
	return first, last
}

var errTooLong = badRequest(fmt.Sprintf("more than %d segments", maxPlaylist))

var errNoInit = errors.New("video lane without an initialization segment")

func listVideo(b *strings.Builder, m conversation.Manifest, lane conversation.Lane) error {
	if len(lane.Segments) > maxPlaylist {
		return errTooLong
	}
	next, started := int64(0), false
	for _, s := range lane.Segments {
		if s.Init == nil && !started {
			return errNoInit
		}
		name := segmentName(m.Bundles[s.Bundle])
		switch {
		case s.Init != nil:
			if started {
				b.WriteString("#EXT-X-DISCONTINUITY\n")
			}
			fmt.Fprintf(b, "#EXT-X-MAP:URI=\"%s/%s.mp4\"\n", lane.ID, name)
		case s.Time != next:
			b.WriteString("#EXT-X-DISCONTINUITY\n")
		}
		if s.Time != next || !started {
			fmt.Fprintf(b, "#EXT-X-PROGRAM-DATE-TIME:%s\n", s.Wall.UTC().Format("2006-01-02T15:04:05.000Z"))
		}
		fmt.Fprintf(b, "#EXTINF:%.5f,\n%s/%s.m4s\n", float64(s.Duration)/float64(m.Tracks[s.Track].Timescale), lane.ID, name)
		next, started = s.Time+s.Duration, true
	}
	return nil
}

var errRange = errors.New("range not satisfiable")

// parseRange reads a Range header of one range, RFC 9110 section 14.1.2. Without a
// header the range is the whole object. What is malformed, names several ranges or asks
// for more than one answer may hold is not satisfiable here: half an answer that looks
// whole would be worse.
func parseRange(headers []string, size int64) (from, n int64, partial bool, err error) {
	if len(headers) == 0 {
		if size > maxRangeReply {
			return 0, 0, false, errRange
		}
		return 0, size, false, nil
	}
	spec, ok := strings.CutPrefix(headers[0], "bytes=")
	a, z, dash := strings.Cut(spec, "-")
	if len(headers) > 1 || !ok || !dash || len(spec) > 64 {
		return 0, 0, false, errRange
	}
	number := func(s string) (int64, bool) {
		if s == "" || s[0] == '+' {
			return 0, false
		}
		v, err := strconv.ParseInt(s, 10, 64)
		return v, err == nil && v >= 0
	}
	last, hasLast := number(z)
	if a == "" { // the last so many bytes
		if !hasLast || last == 0 {
			return 0, 0, false, errRange
		}
		from, n = max(0, size-last), min(last, size)
	} else {
		first, hasFirst := number(a)
		if !hasFirst || z != "" && !hasLast || z != "" && last < first || first >= size {
			return 0, 0, false, errRange
		}
		if z == "" {
			last = size - 1
		}
		from, n = first, min(last, size-1)-first+1
	}
	if n > maxRangeReply || n < 1 {
		return 0, 0, false, errRange
	}
	return from, n, true, nil
}
