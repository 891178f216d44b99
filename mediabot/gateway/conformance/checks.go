package main

// killing is the check after which there is no gateway.
const killing = 28

// checks lists what the contract promises and can be seen from outside.
func checks() []check {
	return []check{
		{1, "without its token, from a web page, or under another name nobody gets in", false, checkDoor},
		{2, "unknown members are ignored; bodies are JSON of at most 256 KiB", false, checkBodies},
		{3, "a call is made in 300 ms and its blob comes back byte for byte", false, checkCreate},
		{4, "a repeated request repeats its reply; another body under the same id is refused", false, checkRepeat},
		{5, "at the limit, while draining and under load new calls are refused", true, checkAdmission},
		{6, "the offer has its sections, codecs and extension in order, and one loopback candidate", false, checkOffer},
		{7, "all tracks arrive on their mid and SSRC", true, checkTracks},
		{8, "both DTLS roles connect, with AES-GCM alone", false, checkRoles},
		{9, "a peer with another certificate than its fingerprint says never connects", false, checkFingerprint},
		{10, "the gate opens for a connected peer with an acknowledgment, and not otherwise", false, checkGateNeeds},
		{11, "nothing passes a closed gate or waits behind it", true, checkClosedGate},
		{12, "no packet leaves after the reply that closed the gate", true, checkShut},
		{13, "without pings the gate closes after six seconds", true, checkLease},
		{14, "RTP time is 960 a tick and follows timestamps over a day, wrap included", true, checkDay},
		{15, "a missing tick is a jump in time with contiguous numbers, marker and gap line", true, checkGap},
		{16, "timestamps of zero, repeated or backward never turn time back", true, checkTimestamps},
		{17, "every frame is that of the source it names, whoever speaks", true, checkChurn},
		{18, "the same while control lines are a second late", true, checkLateLines},
		{19, "a fifth speaker and a source that occurs twice are told and kept on the mix", true, checkFifth},
		{20, "nothing of the former speaker is heard on a slot", true, checkReset},
		{21, "without unmixed buffers the mix carries the call, otherwise it is not sent", true, checkMix},
		{22, "silence sends nothing and is counted", true, checkSilence},
		{23, "H.264 arrives byte for byte", true, checkH264},
		{24, "a new size is told and begins with a key frame", true, checkSize},
		{25, "key frames are asked of the platform once a second", true, checkKeyFrames},
		{26, "under pressure video goes before audio, and what is lost is told exactly", true, checkPressure},
		{27, "a failed socket ends the session with a failure line", true, checkFailure},
		{28, "a killed gateway is noticed within three seconds", true, checkKill},
		{29, "an orphaned call can be taken over with its gate closed, or goes by itself", true, checkOrphan},
		{30, "buffers are disposed once and calls leave nothing behind", true, checkLeaks},
	}
}
