package wirejson

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep objects and arrays may be inside each other, so that a
// small text cannot take much stack.
const maxDepth = 100

// SyntaxError says that a text is not JSON, and where.
type SyntaxError struct {
	Line, Column int // from 1; columns count bytes
	Problem      string
}

func (e *SyntaxError) Error() string {
	return fmt.Sprintf("syntax error at line %d, column %d: %s", e.Line, e.Column, e.Problem)
}

// scanner goes through a text. Its methods leave white space before what they
// read, and none after. They fail with a *SyntaxError, or what their callbacks
// fail with.
type scanner struct {
	text  []byte
	at    int
	depth int
	spare []byte // for strings with escapes

	messages int // how many more may be made
}

func (s *scanner) wrong(format string, args ...any) error {
	before := s.text[:min(s.at, len(s.text))]
	return &SyntaxError{
		Line:    1 + bytes.Count(before, []byte{'\n'}),
		Column:  len(before) - bytes.LastIndexByte(before, '\n'),
		Problem: fmt.Sprintf(format, args...),
	}
}

// peek returns the first byte of the next token, 0 at the end.
func (s *scanner) peek() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

// unexpected is the error for a token that cannot be here.
func (s *scanner) unexpected(want string) error {
	if s.peek(); s.at >= len(s.text) {
		return s.wrong("the text ends where %s should be", want)
	}
	r, size := utf8.DecodeRune(s.text[s.at:])
	if r == utf8.RuneError && size == 1 {
		return s.wrong("found the byte 0x%02x where %s should be", s.text[s.at], want)
	}
	return s.wrong("found %q where %s should be", r, want)
}

// end checks that nothing follows.
func (s *scanner) end() error {
	if s.peek(); s.at < len(s.text) {
		return s.unexpected("the end of the text")
	}
	return nil
}

func (s *scanner) enter() error {
	if s.depth++; s.depth > maxDepth {
		return s.wrong("more than %d objects and arrays inside each other", maxDepth)
	}
	s.at++
	return nil
}

func (s *scanner) leave() {
	s.depth--
	s.at++
}

// members reads an object, whose opening brace is next. For each member read is
// called with the key, which is valid until something else is read, and must read
// the value.
func (s *scanner) members(read func(key []byte) error) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.peek() == '}' {
		s.leave()
		return nil
	}
	for {
		if s.peek() != '"' {
			return s.unexpected("a key in quotes")
		}
		key, err := s.str()
		if err != nil {
			return err
		}
		if s.peek() != ':' {
			return s.unexpected("a colon")
		}
		s.at++
		if err := read(key); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case '}':
			s.leave()
			return nil
		default:
			return s.unexpected("a comma or the end of the object")
		}
	}
}

// elements reads an array, whose opening bracket is next. read is called for each
// element and must read it.
func (s *scanner) elements(read func() error) error {
	if err := s.enter(); err != nil {
		return err
	}
	if s.peek() == ']' {
		s.leave()
		return nil
	}
	for {
		if err := read(); err != nil {
			return err
		}
		switch s.peek() {
		case ',':
			s.at++
		case ']':
			s.leave()
			return nil
		default:
			return s.unexpected("a comma or the end of the array")
		}
	}
}

// skip reads any value.
func (s *scanner) skip() error {
	switch c := s.peek(); c {
	case '{':
		return s.members(func([]byte) error { return s.skip() })
	case '[':
		return s.elements(s.skip)
	case '"':
		_, err := s.str()
		return err
	case 't':
		return s.literal("true")
	case 'f':
		return s.literal("false")
	case 'n':
		return s.literal("null")
	default:
		if c != '-' && (c < '0' || c > '9') {
			return s.unexpected("a value")
		}
		_, err := s.number()
		return err
	}
}

// null reads a null if that is next.
func (s *scanner) null() bool {
	return s.peek() == 'n' && s.literal("null") == nil
}

func (s *scanner) literal(word string) error {
	if !bytes.HasPrefix(s.text[s.at:], []byte(word)) {
		return s.unexpected("a value")
	}
	s.at += len(word)
	return nil
}

// number reads a number and returns its text.
func (s *scanner) number() ([]byte, error) {
	start := s.at
	digits := func() bool {
		from := s.at
		for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
			s.at++
		}
		return s.at > from
	}
	next := func(c ...byte) bool {
		if s.at < len(s.text) && bytes.IndexByte(c, s.text[s.at]) >= 0 {
			s.at++
			return true
		}
		return false
	}
	next('-')
	if !next('0') && !digits() {
		return nil, s.unexpected("a digit")
	}
	if next('.') && !digits() {
		return nil, s.unexpected("a digit")
	}
	if next('e', 'E') {
		next('+', '-')
		if !digits() {
			return nil, s.unexpected("a digit")
		}
	}
	return s.text[start:s.at], nil
}

// str reads a string, whose opening quote is next. The result is valid until the
// next string is read.
func (s *scanner) str() ([]byte, error) {
	s.at++
	start, ascii := s.at, true
	for ; s.at < len(s.text); s.at++ {
		switch c := s.text[s.at]; {
		case c == '"':
			out := s.text[start:s.at]
			if !ascii && !utf8.Valid(out) {
				return nil, s.wrong("the string that ends here is not valid UTF-8")
			}
			s.at++
			return out, nil
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.wrong("a string holds the control character 0x%02x; write it as \\u%04x", c, c)
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return nil, s.wrong("the text ends inside a string")
}

// escaped reads the rest of a string that begins at start, from its first escape.
func (s *scanner) escaped(start int) ([]byte, error) {
	out := append(s.spare[:0], s.text[start:s.at]...)
	for s.at < len(s.text) {
		c := s.text[s.at]
		switch {
		case c == '"':
			if !utf8.Valid(out) {
				return nil, s.wrong("the string that ends here is not valid UTF-8")
			}
			s.at++
			s.spare = out
			return out, nil
		case c < ' ':
			return nil, s.wrong("a string holds the control character 0x%02x; write it as \\u%04x", c, c)
		case c != '\\':
			out = append(out, c)
			s.at++
		default:
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		}
	}
	return nil, s.wrong("the text ends inside a string")
}

// escape reads one escape, from its backslash, and appends what it stands for.
func (s *scanner) escape(out []byte) ([]byte, error) {
	if s.at+1 >= len(s.text) {
		return nil, s.wrong("the text ends inside a string")
	}
	switch c := s.text[s.at+1]; c {
	case '"', '\\', '/':
		out = append(out, c)
	case 'b':
		out = append(out, '\b')
	case 'f':
		out = append(out, '\f')
	case 'n':
		out = append(out, '\n')
	case 'r':
		out = append(out, '\r')
	case 't':
		out = append(out, '\t')
	case 'u':
		return s.unicode(out)
	default:
		return nil, s.wrong("a string holds an unknown escape")
	}
	s.at += 2
	return out, nil
}

// unicode reads one \u escape, or two that are a surrogate pair.
func (s *scanner) unicode(out []byte) ([]byte, error) {
	r, ok := s.unit()
	if !ok {
		return nil, s.wrong("a string holds \\u without four hexadecimal digits")
	}
	if !utf16.IsSurrogate(r) {
		s.at += 6
		return utf8.AppendRune(out, r), nil
	}
	s.at += 6
	low, _ := s.unit()
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		s.at -= 6
		return nil, s.wrong("a string holds half of a surrogate pair")
	}
	s.at += 6
	return utf8.AppendRune(out, r), nil
}

// unit looks at the escape that begins here.
func (s *scanner) unit() (rune, bool) {
	if s.at+6 > len(s.text) || s.text[s.at] != '\\' || s.text[s.at+1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s.text[s.at+2 : s.at+6] {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
