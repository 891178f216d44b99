package gateway

import "slices"

// Defect is one way of breaking the contract on purpose.
type Defect string

// The defects, each with the number of the check that must notice it.
const (
	DefectAnyToken      Defect = "accepts any token"                     // 1
	DefectStrictJSON    Defect = "refuses unknown members"               // 2
	DefectNewBlob       Defect = "gives another blob when asked again"   // 3
	DefectAnyRepeat     Defect = "accepts a call id with another body"   // 4
	DefectNoLimit       Defect = "has no limit of calls"                 // 5
	DefectSendRecv      Defect = "offers to receive"                     // 6
	DefectSwappedTracks Defect = "names two tracks the other way around" // 7
	DefectNoGCM         Defect = "offers no AES-GCM"                     // 8
	DefectNoFingerprint Defect = "does not compare fingerprints"         // 9
	DefectNoAck         Defect = "opens the gate without acknowledgment" // 10
	DefectOpenGate      Defect = "sends through the closed gate"         // 11
	DefectLateFrame     Defect = "sends after the gate was closed"       // 12
	DefectNoLease       Defect = "needs no pings"                        // 13
	DefectStep320       Defect = "counts 320 RTP ticks a frame"          // 14
	DefectHiddenGap     Defect = "closes gaps in time"                   // 15
	DefectTimeBack      Defect = "follows timestamps backward"           // 16
	DefectWrongSource   Defect = "puts a wrong source on packets"        // 17
	DefectNoExtension   Defect = "leaves the header extension out"       // 18
	DefectDropsFifth    Defect = "drops a fifth speaker silently"        // 19
	DefectResidue       Defect = "lets a former speaker through"         // 20
	DefectZeroMix       Defect = "sends a mix beside the speakers"       // 21
	DefectSilence       Defect = "sends silence"                         // 22
	DefectEatsHeader    Defect = "loses NAL headers of 0x01"             // 23
	DefectNoVideoLine   Defect = "does not announce sizes"               // 24
	DefectKeyFrames     Defect = "asks for any number of key frames"     // 25
	DefectHiddenLoss    Defect = "does not report loss"                  // 26
	DefectSurvives      Defect = "ignores failed sockets"                // 27
	DefectImmortal      Defect = "cannot be killed"                      // 28
	DefectKeepsOrphans  Defect = "keeps orphans for ever"                // 29
	DefectLeaks         Defect = "does not dispose buffers"              // 30
)

// Defects lists every defect, in the order of the checks that notice them.
func Defects() []Defect {
	return []Defect{
		DefectAnyToken, DefectStrictJSON, DefectNewBlob, DefectAnyRepeat, DefectNoLimit, DefectSendRecv,
		DefectSwappedTracks, DefectNoGCM, DefectNoFingerprint, DefectNoAck, DefectOpenGate, DefectLateFrame,
		DefectNoLease, DefectStep320, DefectHiddenGap, DefectTimeBack, DefectWrongSource, DefectNoExtension,
		DefectDropsFifth, DefectResidue, DefectZeroMix, DefectSilence, DefectEatsHeader, DefectNoVideoLine,
		DefectKeyFrames, DefectHiddenLoss, DefectSurvives, DefectImmortal, DefectKeepsOrphans, DefectLeaks,
	}
}

func (g *Gateway) has(d Defect) bool { return slices.Contains(g.cfg.Defects, d) }
