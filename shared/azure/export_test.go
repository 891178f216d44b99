package azure

import "time"

// What the tests of real storage need to write rows by hand.
var (
	PackObject  = packObject
	InvertedDay = invertedDay
)

// SetClock gives a signer another clock.
func (s *Signer) SetClock(now func() time.Time) { s.now = now }
