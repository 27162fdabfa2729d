package main

import (
	"bytes"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	isolatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
)

// TestSignalPassesInput: a process that does not read what is typed hears of
// signals and of the window's size all the same.
func TestSignalPassesInput(t *testing.T) {
	n := newNode(t, nil)
	n.run(n.shell("c1", "sleep 1000"))
	flood := &isolatorv1.ExecInput{Stdin: bytes.Repeat([]byte("typed\n"), 50000)}
	process := func(script string) []byte {
		return fmt.Appendf(nil, `{"cwd":"/","env":["PATH=/usr/bin:/bin"],"args":["sh","-c",%q]}`, script)
	}
	_, _, s := n.exec(&isolatorv1.ExecStart{Container: "c1", Process: process("exec sleep 1000")},
		flood, &isolatorv1.ExecInput{StdinClosed: true}, &isolatorv1.ExecInput{Signal: int32(unix.SIGTERM)})
	if s.GetSignal() != int32(unix.SIGTERM) {
		t.Errorf("a process that does not read ended with %v", s)
	}
	out, _, s := n.exec(&isolatorv1.ExecStart{Container: "c1", Tty: true, Process: process("stty raw -echo; until stty size | grep '33 44'; do sleep 0.05; done")},
		flood, &isolatorv1.ExecInput{Resize: &isolatorv1.WindowSize{Rows: 33, Columns: 44}})
	if s.GetCode() != 0 || out == "" {
		t.Errorf("on a terminal: %q, %v", out, s)
	}
	// What waits is bounded, and all of it arrives in order when it is read.
	many := []*isolatorv1.ExecInput{}
	for range 10 {
		many = append(many, flood)
	}
	out, _, s = n.exec(&isolatorv1.ExecStart{Container: "c1", Process: process("sleep 0.3; sort -u | tr -d '\\n'; echo; cat | wc -c")}, append(many, &isolatorv1.ExecInput{StdinClosed: true})...)
	if out != "typed\n0\n" || s.GetCode() != 0 {
		t.Errorf("read late: %q, %v", out, s)
	}
	if _, err := n.Kill(n.ctx(), &isolatorv1.KillRequest{Container: "c1"}); err != nil {
		t.Fatal(err)
	}
	n.wait("c1")
}
