//go:build !linux

package plugin

import "os"

// divertStdout has no portable form; go-plugin diverts os.Stdout itself once
// the handshake is done.
func divertStdout() (*os.File, error) { return os.Stdout, nil }
