// Package gateway is a media gateway without Microsoft's media library: it implements the contract of
// mediabot/gateway/PROTOCOL.md with pion, so that a recorder cannot tell it from the real one.
//
// The media come from a Source, asked every 20 ms for what Teams would hand to the call's sockets. Audio is Opus
// already, so a tick costs no encoding and two hundred calls fit on one core. With Config.TestMode the endpoints under
// /v1/test let a conformance program script ticks, clock and faults; a Defect makes the gateway break the contract in
// one named way, which shows that a check of the contract can fail.
//
// Not simulated: PCM, so a tick with two extra voices sends the first on the mix and reports the second as lost, and
// the platform's certificate and CPU load, which are constants.
package gateway
