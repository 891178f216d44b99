// Package coverage says what ought to have been captured and what was: the words, the
// arithmetic and the registers of reconciliation. It reads no store and asks nobody; function
// reconcile does, and what it finds it puts into the words of this package.
//
// # The equation
//
// Every line of a Statement is about one custodian and one modality, in one unit, and holds
//
//	expected = captured + excluded + failed + unknown
//
// Captured is in evidence. Excluded is kept out by a rule that is named. Failed is missing, and
// the reason is named. Unknown is what nobody can tell yet, or what cannot be told at all: it
// is never counted as captured. What cannot even be expected, because no interface of
// Microsoft's shows it, stands in BlindSpots.
//
// Chats and channels are counted twice. In seconds: each moment in which somebody was
// recorded was read by a finished export window, or it was not, and Graph's export returns
// everything that was modified in a window. And in message versions: those that are known to
// exist. The seconds are the proof that nothing is missing; the versions say how much that was.
//
// # Calls
//
// Graph's call records are the other witness of calls: the platform's own list, kept for 30
// days. Each Stay of a recorded user in a call is matched with the legs that the recorder
// left, by person, time and thread. A stay without one, or with less media than it lasted, is
// a capture gap; a recording that comes late heals it.
package coverage
