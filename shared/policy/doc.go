// Package policy decides who is recorded and when, and who may see what.
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
// The package reads nothing itself: stores implement Roster.
package policy
