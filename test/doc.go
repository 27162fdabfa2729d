// Package test holds the end-to-end tests: real binaries, real processes, the
// command line as a user types it.
package test
