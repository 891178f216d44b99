// Package conversation holds the nouns of what is captured: the conversation, the
// version of a message, the export window, and the catalog in which they are found.
//
// A chat conversation is one thread on one UTC day: the unit that is listed, held
// and kept. A message belongs to the day it was sent; its later edits and its
// deletion belong to that same conversation, however late they come.
//
// # How a message version gets in, once
//
// Identity is (thread, message id, etag). Every recorded participant's export
// returns the same message, and deliveries repeat, so the catalog is where a
// version is claimed before its bytes are stored:
//
//  1. read the conversation's Slice: the objects it has and the versions in them (or
//     guess that there is none, which costs nothing but the claim if it is wrong);
//  2. Claim the versions that are new under a fresh object name. The claim fails
//     with ErrConflict if anybody changed the slice meanwhile; then start again at 1;
//  3. put the evidence object under that name, write-once;
//  4. FinishWindow when every object the window relies on is known to exist.
//
// The blob is the truth and the claim is a promise. Whoever finds a claim whose
// object is missing completes it with the same bytes if it holds them all (the
// digests in the claim tell), since a write-once name can be filled only once;
// otherwise it waits until the claim has expired and then replaces it. So a writer
// may die at any step, and no version is stored twice or believed stored when it is
// not.
//
// # What messages point at
//
// Files and images get in the same way, a part of each claimed under its digest, but for one
// thing: they are fetched later, one by one, and may not be had at all. What became of each is
// in a register of its own (Attachments). Their identity is (thread, message id, kind, address),
// so that the versions of a message share what they point at.
package conversation
