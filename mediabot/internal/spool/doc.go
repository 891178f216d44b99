// Package spool carries sealed bundles to evidence: durable on disk first, in order, retried
// with the same bytes, bounded, and recovered after a crash.
//
// What it writes is one journal, a row of files that only grow. Once a second it asks
// every leg for what is complete, seals it, appends it for all legs together and waits
// for the disk once, however many legs there are. From there bundles go up in the order
// keys, tails, pack; what is in a pack is dropped from the journal, and a journal file
// goes when nothing in it, nor in an older one, is needed any more: so whatever says that
// something is done outlives what it speaks of.
//
// Nothing but ciphertext, digests and ids touches the disk. The digest of every item is
// kept in memory too: what was altered or removed on disk is not uploaded, is missing in
// the leg's record, and is told.
package spool
