// Package spool carries sealed bundles to evidence: durable on disk first, in order, retried
// with the same bytes, bounded, and recovered after a crash.
package spool
