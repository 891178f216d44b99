//go:build race

package reconcile_test

// histories is fewer under the race detector, which takes eight times as long.
const histories = 1000
