//go:build !race

package reconcile_test

const histories = 10_000
