// Package azurite runs the Azurite storage emulator as one storage account for
// tests: Blob, Queue and Table on loopback, with the write-once proxy of
// package worm in front of Blob and an operation counter in front of Blob and
// Table.
//
// package.json pins the emulator; [Install] brings it in with npm. What Azurite
// does not do stays undone here: it keeps no versions and has no soft delete,
// it lets a table transaction span partitions, and it loses the last seconds
// before a kill (never before [Account.Stop]).
package azurite
