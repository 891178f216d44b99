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
//
// Holding, erasing and signing are not built yet. Their seams: a unit (the
// conversation) is what holds and retention speak of, Sealed carries the digests of
// plain and cipher text that a manifest will list, and Blobs is where Retain Until
// will be set; today the container's default policy protects every object.
package evidence
