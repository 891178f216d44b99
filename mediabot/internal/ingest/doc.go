// Package ingest receives a leg's media from the gateway over WebRTC and turns it into timed
// samples, each attributed to a source, with every missing frame named.
//
// A Receiver answers offers; each Peer it returns is one connection. What arrives is
// dropped unless a Sink is attached, so nothing is buffered before a recording was
// granted. The contract with the gateway is mediabot/gateway/PROTOCOL.md.
//
// Packets take the shortest way that pion offers: the SRTP session hands each decrypted
// packet to the peer through the settings' buffer factory, without a reader, an
// interceptor or a goroutine a track. NACK and receiver reports, which interceptors would
// otherwise make from what they read, come from the reorder window itself: it knows what
// is missing, and for how long it will wait.
//
// A recorder is in no hurry. Once a peer records, its socket is read in bursts, so that
// the goroutines on the way wake up for several packets at once; the socket's buffer is
// large enough for that a hundred times over.
package ingest
