// Package session owns one recorded leg from invite to hand-over: it asks the gateway
// for media, answers the call, waits for Graph's acknowledgment that recording was
// announced, records, follows the roster and the recording rules, and hands over to
// finalize when the call ends.
//
// The order of things is the compliance rule of the platform: no byte of media is kept
// before Graph answered 200 to updateRecordingStatus(recording), and none after
// recording stopped. A Recording can be started only with msgraph.RecordingGranted,
// which nothing but that answer yields.
// https://learn.microsoft.com/graph/api/call-updaterecordingstatus
package session
