// Package segment cuts timed samples into segments on wall-clock boundaries and lays them
// out as fMP4 fragments in bundles, silence and gap ledger included.
//
// A Leg takes frames as ingest delivers them, in order for each source, and gives out
// bundles when it is flushed. Nothing in it starts a goroutine or asks for the time while
// frames come: whoever flushes says what time it is, and the leg counts from its first
// moment with the monotonic clock, so a step of the wall clock bends nothing.
//
// Audio has no holes: where no frame came there is a frame of silence for each 20 ms, and
// an entry in the ledger that says why. Decoded length is wall time from the first frame
// of a track on, to within 20 ms, however long the call. Nothing is resampled, stretched
// or cut: where a media clock runs slow a frame of silence evens it out, where it runs
// fast, or time jumps by more than MaxFill, a new run begins. A source that was not heard
// for Dormant is no longer filled; its return is a new run, and the ledger says for how
// long it was away.
//
// Frames that would lie over others of their track (late ones, or two feeds of which
// neither is known beyond doubt) go into a run beside it, so none is lost.
package segment
