//go:build race

package main

// slowdown is how many times fewer changes are tried under the race detector.
const slowdown = 20
