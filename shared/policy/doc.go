// Package policy decides who is recorded and when, who may see what, how long it is kept,
// and what may be destroyed.
//
// It holds pure decisions over a Roster: a person is recorded because an Entra
// group says so, from the moment group sync first saw it until the moment it saw
// the person gone. Periods are never rewritten, only closed, so the question
// "who was recorded at that time" keeps its answer.
//
// A supervisor is assigned to recorded users by desk: a role group names the desk
// it belongs to, and a supervisor sees the recorded users of the desks she
// supervises. Rights are computed as of now for access and as of the event for
// scope: she must be assigned now, and the conversation must fall into the
// recorded user's period on that desk.
//
// Data management policies say how long: the most specific one of each desk of each
// custodian, and of several the longest. A Retain Until that was set is never shortened.
// Matters hold whatever they cover, and beat every expiry; an expiry beats an erasure. What
// destroys, releases or hands out much needs two persons, who agree on one text: a Proposal
// carries it with its digest, and is executed once, in its time, for exactly what it names.
//
// The package reads nothing itself: stores implement Roster, Matters, Approvals and
// Dispositions.
package policy
