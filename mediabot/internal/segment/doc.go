// Package segment cuts timed samples into segments on wall-clock boundaries and lays them
// out as fMP4 fragments in bundles, silence and gap ledger included.
package segment
