package ingest

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"steno/shared/conversation"
)

// ErrOffer is wrapped when an offer is not one that a gateway on this machine makes.
var ErrOffer = errors.New("offer refused")

// Offer is what the gateway returned for a call.
type Offer struct {
	Leg       conversation.LegID
	SDP       string
	Tracks    []Track
	SourceExt int // id of the source header extension, 0 if there is none
}

// Track is one track of an offer.
type Track struct {
	MID       string
	Name      string // a0…a3, mix, v0…, vbss
	Kind      string // audio or video
	SSRC      uint32
	PT        uint8
	ClockRate int
}

const (
	sourceExtension = "urn:recorder:mgw:source:1"
	controlLabel    = "ctl"
	controlProtocol = "mgw.v1"
	maxCandidates   = 4
)

// check refuses what no gateway on this machine offers, and returns where its packets
// come from: nobody else is listened to.
func (o Offer) check(allowed netip.Addr) ([]netip.AddrPort, error) {
	refuse := func(format string, a ...any) ([]netip.AddrPort, error) {
		return nil, fmt.Errorf("%w: %s", ErrOffer, fmt.Sprintf(format, a...))
	}
	if len(o.Tracks) == 0 || len(o.Tracks) > MaxTracks {
		return refuse("%d tracks, want 1 to %d", len(o.Tracks), MaxTracks)
	}
	ssrcs := map[uint32]bool{}
	for _, t := range o.Tracks {
		if (t.Kind != "audio" || t.ClockRate != 48000) && (t.Kind != "video" || t.ClockRate != 90000) {
			return refuse("track %q: %s at %d Hz", t.Name, t.Kind, t.ClockRate)
		}
		if t.SSRC == 0 || ssrcs[t.SSRC] {
			return refuse("track %q: SSRC is missing or taken", t.Name)
		}
		ssrcs[t.SSRC] = true
	}
	if o.SourceExt < 0 || o.SourceExt > 14 {
		return refuse("header extension id %d, want 1 to 14", o.SourceExt)
	}
	parsed, err := (&webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: o.SDP}).Unmarshal()
	if err != nil {
		return refuse("not SDP")
	}
	return checkSDP(parsed, allowed, refuse)
}

func checkSDP(d *sdp.SessionDescription, allowed netip.Addr, refuse func(string, ...any) ([]netip.AddrPort, error)) ([]netip.AddrPort, error) {
	attributes := [][]sdp.Attribute{d.Attributes}
	channels := 0
	for _, m := range d.MediaDescriptions {
		attributes = append(attributes, m.Attributes)
		if m.MediaName.Media == "application" {
			channels++
		}
	}
	if channels != 1 || len(d.MediaDescriptions) > MaxTracks+1 {
		return refuse("%d media sections, %d for data", len(d.MediaDescriptions), channels)
	}
	var fingerprint string
	var from []netip.AddrPort
	for _, list := range attributes {
		for _, a := range list {
			switch a.Key {
			case "fingerprint":
				f := strings.ToLower(a.Value)
				if fingerprint != "" && f != fingerprint || !strings.HasPrefix(f, "sha-256 ") {
					return refuse("want one SHA-256 fingerprint")
				}
				fingerprint = f
			case "ice-lite":
				return refuse("both ends would be ICE lite")
			case "candidate":
				at, err := candidate(a.Value, allowed)
				if err != nil {
					return refuse("%s", err)
				}
				from = append(from, at)
			}
		}
	}
	if fingerprint == "" {
		return refuse("no fingerprint")
	}
	if len(from) == 0 || len(from) > maxCandidates*(MaxTracks+1) {
		return refuse("%d candidates", len(from))
	}
	return from, nil
}

// candidate reads an ICE candidate, RFC 8839 section 5.1, and refuses all but host
// candidates of the one address.
func candidate(value string, allowed netip.Addr) (netip.AddrPort, error) {
	f := strings.Fields(value)
	if len(f) < 8 || !strings.EqualFold(f[2], "udp") || f[6] != "typ" || f[7] != "host" {
		return netip.AddrPort{}, errors.New("a candidate that is not a UDP host candidate")
	}
	addr, err := netip.ParseAddr(f[4])
	if err != nil || addr.Unmap() != allowed {
		return netip.AddrPort{}, errors.New("a candidate on another machine")
	}
	port, err := strconv.ParseUint(f[5], 10, 16)
	if err != nil || port == 0 {
		return netip.AddrPort{}, errors.New("a candidate without a port")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), nil
}
