package authorization

import (
	"errors"
	"fmt"
	"strings"
)

// pattern is a text in which * stands for any characters, none included: what is
// before, between and after the stars. One part is a text without a star.
type pattern struct{ parts []string }

// special are the characters that a pattern takes as themselves only after a
// backslash. All but the star mean nothing yet: whoever writes them expects what
// other languages do.
const special = `*?[]{}\`

// CheckPattern says why a text is no pattern; nil: it is one.
func CheckPattern(text string) error {
	_, err := parse(text)
	return err
}

func parse(text string) (pattern, error) {
	var p pattern
	if text == "" {
		return p, errors.New("it is empty, and would match nothing")
	}
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '*' && i > 0 && text[i-1] == '*' && part.Len() == 0 && len(p.parts) > 0:
			return p, errors.New("it has ** in it; one * matches everything, slashes too")
		case c == '*':
			p.parts = append(p.parts, part.String())
			part.Reset()
		case c == '\\' && (i+1 == len(text) || !strings.ContainsRune(special, rune(text[i+1]))):
			return p, fmt.Errorf(`it has a backslash that stands before none of %s`, special)
		case c == '\\':
			i++
			part.WriteByte(text[i])
		case strings.IndexByte(special, c) >= 0:
			return p, fmt.Errorf(`it has %q in it; only * is special. For the character itself write "\\%c"`, c, c)
		case c == '%' && i > 0 && text[i-1] == '/' && i+1 == len(text):
			return p, fmt.Errorf("it ends in /%%, as Mesos writes what is below a role; write %q", text[:i]+"*")
		case c < ' ' || c == 0x7f:
			return p, fmt.Errorf("it has the control character %q in it", c)
		default:
			part.WriteByte(c)
		}
	}
	p.parts = append(p.parts, part.String())
	return p, nil
}

// literal is the text that the pattern stands for; false: there are several.
func (p pattern) literal() (string, bool) { return p.parts[0], len(p.parts) == 1 }

// everything is whether the pattern is *.
func (p pattern) everything() bool { return len(p.parts) == 2 && p.parts[0] == "" && p.parts[1] == "" }

func (p pattern) matches(s string) bool {
	last := len(p.parts) - 1
	if last == 0 {
		return s == p.parts[0]
	}
	rest, ok := strings.CutPrefix(s, p.parts[0])
	if !ok {
		return false
	}
	for _, part := range p.parts[1:last] {
		i := strings.Index(rest, part)
		if i < 0 {
			return false
		}
		rest = rest[i+len(part):]
	}
	return strings.HasSuffix(rest, p.parts[last])
}
