package command

import (
	"bytes"
	"testing"
)

func TestProgressLine(t *testing.T) {
	for width, want := range map[int]string{
		0:  "mezzo: pulling, 1 of 2 layers\nmezzo: unpacking\n",
		80: "\r\x1b[Kmezzo: pulling, 1 of 2 layers\r\x1b[Kmezzo: unpacking\r\x1b[K",
		17: "\r\x1b[Kmezzo…f 2 layers\r\x1b[Kmezzo: unpacking\r\x1b[K",
	} {
		var out bytes.Buffer
		p := newProgressLine(&out)
		if width > 0 {
			p.width = func() int { return width }
		}
		p.show("pulling, 1 of 2 layers")
		p.show("unpacking")
		p.clear()
		p.clear() // there is nothing more to take away
		if out.String() != want {
			t.Errorf("%d letters wide: %q, want %q", width, out.String(), want)
		}
	}
}
