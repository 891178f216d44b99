//go:build race

package portal_test

// slowdown is how much smaller inputs are made under the race detector, which makes
// everything that many times slower.
const slowdown = 8
