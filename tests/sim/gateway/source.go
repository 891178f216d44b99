package gateway

import "time"

// TickLength is how long a tick is: the platform hands audio over fifty times a second.
const TickLength = 20 * time.Millisecond

const (
	audioStep  = 960    // RTP ticks of 48 kHz in one tick
	tickUnits  = 200000 // units of 100 ns in one tick
	videoStep  = 9      // RTP ticks of 90 kHz per videoUnits units of 100 ns
	videoUnits = 1000
)

// Sources that stand for nobody in particular, as they stand on the wire.
const (
	sourceUnknown = 0
	sourceMixed   = 1<<32 - 1
)

// epoch1900 is the origin of platform timestamps.
var epoch1900 = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)

// Timestamp returns the platform's timestamp of an instant: units of 100 ns since 1900, UTC.
func Timestamp(at time.Time) int64 {
	d := at.Unix() - epoch1900.Unix()
	return d*10_000_000 + int64(at.Nanosecond())/100
}

// Instant is the inverse of Timestamp.
func Instant(timestamp int64) time.Time {
	return time.Unix(epoch1900.Unix()+timestamp/10_000_000, timestamp%10_000_000*100).UTC()
}

// Source is what Teams sends into the sockets of one call. Tick is called for every multiple of TickLength since the
// Unix epoch, in order, by one goroutine at a time, and must not block. What it returns is not changed afterwards by
// either side.
type Source interface {
	Tick(at time.Time) Tick
}

// Tick is one callback of the platform's audio socket, together with the video that came since the one before.
type Tick struct {
	// Missing: the platform made no callback. Nothing else of the tick counts but Video.
	Missing bool
	// Timestamp is the time of reception in units of 100 ns since 1900. Zero occurs.
	Timestamp int64
	// Unmixed are the voices of up to four speakers. Nil means that the platform gave no unmixed buffers, as in a call
	// of two; empty means that nobody speaks.
	Unmixed []Entry
	// Mixed is an Opus packet of the mixed buffer, nil where it holds zeros.
	Mixed []byte
	// Silence is the platform's flag for the whole buffer.
	Silence bool
	// Active are the sources that speak, as far as the platform says.
	Active   []uint32
	Dominant uint32 // 0: unchanged
	Video    []VideoFrame
}

// Entry is one speaker's 20 ms: an Opus packet of 960 samples at 48 kHz.
type Entry struct {
	MSI  uint32
	Opus []byte
}

// VideoFrame is one decodable access unit in Annex B form (ITU-T H.264, Annex B).
type VideoFrame struct {
	// Socket is v0, v1, … or vbss. Empty: every camera socket that is subscribed to the source.
	Socket           string
	MSI              uint32
	Timestamp        int64 // units of 100 ns since 1900
	Width, Height    int
	SourceW, SourceH int // size before the platform scaled it down
	AnnexB           []byte
}
