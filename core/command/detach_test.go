package command

import "testing"

// The keys that leave a task are found however they arrive, and never reach it.
func TestDetachKeys(t *testing.T) {
	for _, test := range []struct {
		name  string
		reads []string
		want  string
		left  bool
	}{
		{"in one read", []string{"ls\r\x10\x11"}, "ls\r", true},
		{"in two reads", []string{"ls\r\x10", "\x11"}, "ls\r", true},
		{"another key between", []string{"\x10", "a\x11"}, "\x10a\x11", false},
		{"the first twice", []string{"\x10\x10", "\x11"}, "\x10", true},
		{"the first alone, and no more", []string{"a", "\x10", ""}, "a\x10", false},
		{"the second first", []string{"\x11\x10", ""}, "\x11\x10", false},
	} {
		var k detachKeys
		got, left := "", false
		for i, read := range test.reads {
			var through []byte
			through, left = k.pass([]byte(read), i == len(test.reads)-1 && read == "")
			got += string(through)
		}
		if got != test.want || left != test.left {
			t.Errorf("%s: %q reached the task, left: %v; want %q, %v", test.name, got, left, test.want, test.left)
		}
	}
}
