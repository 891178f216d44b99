// Package evidence stores what was captured so that it cannot be changed or lost
// unseen, and opens it only for those whose reading is on record.
//
// It hides the layout in storage, encryption, keys, hashes and write-once rules.
// FORMAT.md beside this file specifies the stored bytes well enough to write a second
// reader.
//
//   - Seal encrypts in memory under a fresh data key; Put stores the sealed bytes in one
//     write-once request. Between the two the object may wait on disk as ciphertext.
//   - Open demands a custody.Receipt, which exists only after the event was stored, and
//     reads any range of the plain bytes, each chunk verified before it is shown.
//   - A conversation's keys lie outside write-once storage: destroying them erases the
//     conversation while its sealed bytes stay locked.
//   - A unit (a conversation, a leg) is what is held, kept and erased as one: Keeper does
//     that for those who may, and reads no content. Sealed.Until is the Retain Until that an
//     object gets with its first byte; storage refuses to let it go before.
//   - Sealed carries the digest of its stored bytes and a commitment to the plain ones
//     (Commitment). Both stand in the custody log, so that the log binds what is stored and
//     what is handed out, and tells nothing of either. What the design calls a manifest is
//     that record: canonical JSON, made hard to guess by its id's random bits, numbered
//     within its unit in place of a chain, and signed with all others by one signature an
//     hour. A signature of its own for each object would cost a vault operation each.
//   - Long objects that are made, such as export packages, are stored as sealed parts.
package evidence
