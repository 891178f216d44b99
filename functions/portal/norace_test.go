//go:build !race

package portal_test

const slowdown = 1
