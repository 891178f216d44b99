package azure

// What the tests of real storage need to write rows by hand.
var (
	PackObject  = packObject
	InvertedDay = invertedDay
)
