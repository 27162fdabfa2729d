package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// ParseError says where a text is wrong.
type ParseError struct {
	// Text is the whole text.
	Text string
	// Offset is where it is wrong, in bytes from 0.
	Offset int
	// Message says what is wrong and what to write instead.
	Message string
}

// Error returns the text, the place (counted from 1) and the message.
func (e *ParseError) Error() string {
	text := e.Text
	if len(text) > 80 {
		from := max(0, e.Offset-40)
		text = text[from:min(len(text), from+80)]
		return fmt.Sprintf("resources (near %s), character %d: %s", quote(text), e.Offset+1, e.Message)
	}
	return fmt.Sprintf("resources %s, character %d: %s", quote(text), e.Offset+1, e.Message)
}

// quote quotes a text so that a person can still read the quotes in it.
func quote(text string) string {
	if strings.Contains(text, `"`) && strconv.CanBackquote(text) {
		return "`" + text + "`"
	}
	return strconv.Quote(text)
}

// Parse reads resources in their text form or their JSON form.
//
// The text form is a list of resources with semicolons between them. Each is a
// name, a role in parentheses if it is (statically) reserved, a colon and a
// value; spaces around these do not matter:
//
//	cpus:4;mem:4096.5;cpus(ads):2;ports:[31000-32000,40000];zones:{a,b}
//
// A dynamic reservation has ", dyn" after the role, and after that its principal,
// if it has one. A refined one is a list, the outermost reservation first:
//
//	cpus(ads, dyn):2;mem(ads, dyn, ann):512;disk(ads)(ads/db, dyn):64
//
// A scalar is rounded to the nearest thousandth. What else a v1 Resource may
// say stands before the colon, in braces, as JSON:
//
//	cpus{"revocable":{}}:2
//
// Resources that are named twice add up. An empty text, an empty part, "[]" and
// "{}" are nothing.
//
// The JSON form is an array of v1 Resources, and begins with "[":
//
//	[{"name":"cpus","type":"SCALAR","scalar":{"value":4}}]
//
// An error about the text form is a *ParseError.
func Parse(text string) (Resources, error) {
	if t := strings.TrimSpace(text); strings.HasPrefix(t, "[") {
		return parseJSON(t)
	}
	p := &parser{text: text}
	var list Resources
	for {
		p.space()
		if p.at == len(text) {
			break
		}
		if p.take(';') {
			continue
		}
		start := p.at
		m, err := p.resource()
		if err != nil {
			return nil, err
		}
		if err := Validate(m); err != nil {
			return nil, p.errorAt(start, "%s", err)
		}
		if r := fromValid(m); !r.IsEmpty() {
			list = append(list, r)
		}
		if p.space(); p.at < len(text) && !p.take(';') {
			return nil, p.errorAt(p.at, "unexpected %q after the value of %q; separate resources with \";\"", text[p.at:min(p.at+10, len(text))], m.GetName())
		}
	}
	out, err := checkSums(normalise(list))
	if err != nil {
		return nil, p.errorAt(0, "%s", err)
	}
	return out, nil
}

// MustParse is Parse for texts in a program; it panics if the text is wrong.
func MustParse(text string) Resources {
	r, err := Parse(text)
	if err != nil {
		panic(err)
	}
	return r
}

func parseJSON(text string) (Resources, error) {
	dec := json.NewDecoder(strings.NewReader(text))
	var raw []json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("resources in JSON, byte %d: %w", syntax.Offset, err)
		}
		return nil, fmt.Errorf("resources in JSON: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, fmt.Errorf("resources in JSON, byte %d: something follows the array", dec.InputOffset())
	}
	list := make([]*mezzov1.Resource, len(raw))
	for i, b := range raw {
		list[i] = new(mezzov1.Resource)
		if err := (protojson.UnmarshalOptions{AllowPartial: true}).Unmarshal(b, list[i]); err != nil {
			return nil, fmt.Errorf("resources in JSON: resource %d of %d: %w", i+1, len(raw), err)
		}
	}
	out, err := FromProto(list)
	if err != nil {
		return nil, fmt.Errorf("resources in JSON: %w", err)
	}
	return out, nil
}

// parser reads the text form.
type parser struct {
	text string
	at   int
}

func (p *parser) errorAt(at int, format string, args ...any) error {
	return &ParseError{Text: p.text, Offset: at, Message: fmt.Sprintf(format, args...)}
}

func (p *parser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *parser) peek() byte {
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *parser) take(c byte) bool {
	if p.at < len(p.text) && p.text[p.at] == c {
		p.at++
		return true
	}
	return false
}

// until returns what stands before one of the stops, trimmed, and where.
func (p *parser) until(stops string) (string, int) {
	p.space()
	start := p.at
	for p.at < len(p.text) && strings.IndexByte(stops, p.text[p.at]) < 0 {
		p.at++
	}
	return strings.TrimRight(p.text[start:p.at], " \t\r\n"), start
}

func (p *parser) resource() (*mezzov1.Resource, error) {
	name, start := p.until(":;(){}[]")
	if name == "" {
		return nil, p.errorAt(start, "a resource's name is missing")
	}
	var stack []*mezzov1.Resource_ReservationInfo
	stackAt := p.at
	for p.take('(') {
		r, err := p.reservation()
		if err != nil {
			return nil, err
		}
		if r.Role != Unreserved {
			stack = append(stack, r.toProto())
		}
		p.space()
	}
	m := new(mezzov1.Resource)
	if p.peek() == '{' {
		if err := p.marks(m); err != nil {
			return nil, err
		}
		p.space()
	}
	if len(stack) > 0 {
		if m.Reservations != nil {
			return nil, p.errorAt(stackAt, "%q has a role in parentheses and reservations in braces; give one of them", name)
		}
		m.Reservations = stack
	}
	if !p.take(':') {
		return nil, p.errorAt(p.at, "the \":\" and the value of %q are missing; write %s:1", name, name)
	}
	m.Name = proto.String(name)
	return m, p.value(m)
}

// dynamicWord marks a reservation that an operation made.
const dynamicWord = "dyn"

// reservation reads what stands in parentheses: a role, and for a dynamic
// reservation "dyn" and the principal, if there is one.
func (p *parser) reservation() (Reservation, error) {
	text, at := p.until(")")
	if !p.take(')') {
		return Reservation{}, p.errorAt(p.at, "the \")\" after the role %q is missing", text)
	}
	r := Reservation{Role: text}
	if role, rest, found := strings.Cut(text, ","); found {
		word, principal, named := strings.Cut(rest, ",")
		if strings.TrimSpace(word) == dynamicWord { // else the comma is the role's own
			r = Reservation{Role: strings.TrimSpace(role), Dynamic: true, Principal: strings.TrimSpace(principal)}
			if named && r.Principal == "" {
				return r, p.errorAt(at, "after the second \",\" the principal is missing")
			}
		}
	}
	if err := ValidateRole(r.Role); err != nil {
		return r, p.errorAt(at, "%s", err)
	}
	return r, nil
}

// text is the reservation as it stands in parentheses; false if it cannot.
func (r Reservation) text() (string, bool) {
	switch {
	case r.Labels != nil || !plain(r.Role, ")"):
		return "", false
	case !r.Dynamic:
		return "(" + r.Role + ")", r.Principal == "" && !strings.Contains(r.Role, ","+dynamicWord)
	case strings.Contains(r.Role, ","):
		return "", false
	case r.Principal == "":
		return "(" + r.Role + ", " + dynamicWord + ")", true
	}
	return "(" + r.Role + ", " + dynamicWord + ", " + r.Principal + ")", plain(r.Principal, ")")
}

// marks reads the JSON object before the colon.
func (p *parser) marks(m *mezzov1.Resource) error {
	start := p.at
	dec := json.NewDecoder(strings.NewReader(p.text[start:]))
	var raw json.RawMessage
	if err := dec.Decode(&raw); err != nil {
		return p.errorAt(start, "the JSON in braces is wrong: %s", err)
	}
	p.at = start + int(dec.InputOffset())
	if err := (protojson.UnmarshalOptions{AllowPartial: true}).Unmarshal(raw, m); err != nil {
		return p.errorAt(start, "the JSON in braces is wrong: %s", err)
	}
	if m.Name != nil || m.Type != nil || m.Scalar != nil || m.Ranges != nil || m.Set != nil {
		return p.errorAt(start, "the JSON in braces has a name, type or value; these stand outside of it")
	}
	if m.Role != nil || m.Reservation != nil {
		return p.errorAt(start, "the JSON in braces has role or reservation; use reservations")
	}
	return nil
}

func (p *parser) value(m *mezzov1.Resource) error {
	p.space()
	switch p.peek() {
	case '[':
		m.Type = mezzov1.Value_RANGES.Enum()
		m.Ranges = &mezzov1.Value_Ranges{}
		return p.list(']', func(item string, at int) error {
			r, err := p.rangeOf(item, at)
			m.Ranges.Range = append(m.Ranges.Range, r)
			return err
		})
	case '{':
		m.Type = mezzov1.Value_SET.Enum()
		m.Set = &mezzov1.Value_Set{}
		return p.list('}', func(item string, _ int) error {
			m.Set.Item = append(m.Set.Item, item)
			return nil
		})
	}
	text, at := p.until(";")
	v, err := parseNumber(text)
	if err != nil {
		return p.errorAt(at, "the value of %q: %s", m.GetName(), err)
	}
	m.Type = mezzov1.Value_SCALAR.Enum()
	m.Scalar = &mezzov1.Value_Scalar{Value: &v}
	return nil
}

// parseNumber reads a decimal number.
func parseNumber(text string) (float64, error) {
	if text == "" {
		return 0, errors.New("it is missing; write a number, [ranges] or {a set}")
	}
	if strings.Trim(text, "0123456789.eE+-") != "" {
		return 0, fmt.Errorf("%q is not a number, [ranges] or {a set}", text)
	}
	v, err := strconv.ParseFloat(text, 64)
	if errors.Is(err, strconv.ErrRange) && math.IsInf(v, 0) {
		return 0, fmt.Errorf("%q is too large", text)
	}
	if err != nil {
		return 0, fmt.Errorf("%q is not a number, [ranges] or {a set}", text)
	}
	return v, nil
}

// list reads the items between the bracket that p is at and the closing one.
func (p *parser) list(closing byte, add func(item string, at int) error) error {
	open := p.at
	p.at++
	for first := true; ; first = false {
		item, at := p.until("," + string(closing))
		if p.at == len(p.text) {
			return p.errorAt(open, "the %q that closes %q is missing", string(closing), p.text[open:open+1])
		}
		end := p.take(closing)
		if item == "" {
			if end && first {
				return nil // [] or {}
			}
			return p.errorAt(at, "an item is missing")
		}
		if err := add(item, at); err != nil {
			return err
		}
		if end {
			return nil
		}
		p.at++ // the comma
	}
}

func (p *parser) rangeOf(item string, at int) (*mezzov1.Value_Range, error) {
	first, last, two := strings.Cut(item, "-")
	if !two {
		last = first
	}
	begin, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 64)
	end, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 64)
	if err1 != nil || err2 != nil {
		return nil, p.errorAt(at, "%q is not a range; write one like 31000-32000", item)
	}
	if begin > end {
		return nil, p.errorAt(at, "the range %d-%d ends before it begins", begin, end)
	}
	return &mezzov1.Value_Range{Begin: &begin, End: &end}, nil
}

// String returns the text form, or the JSON form if a name, role or item has
// characters that the text form cannot hold. Parse reads it back.
func (a Resources) String() string {
	var b strings.Builder
	for i := range a {
		text, ok := a[i].text()
		if !ok {
			return a.JSON()
		}
		for range max(1, a[i].Count) {
			if b.Len() > 0 {
				b.WriteByte(';')
			}
			b.WriteString(text)
		}
	}
	return b.String()
}

// JSON returns the JSON form: an array of v1 Resources without spaces.
func (a Resources) JSON() string {
	parts := make([]string, 0, len(a))
	for _, p := range a.ToProto() {
		parts = append(parts, compactJSON(p))
	}
	return "[" + strings.Join(parts, ",") + "]"
}

// String returns the resource in the text form, one copy of it if atomic.
func (r *Resource) String() string {
	if text, ok := r.text(); ok {
		return text
	}
	return compactJSON(r.ToProto())
}

func (r *Resource) text() (string, bool) {
	kind, ok := kindText(r.Kind)
	if !ok {
		return "", false
	}
	switch r.Kind.typ {
	case TypeScalar:
		return kind + ":" + r.Scalar.String(), true
	case TypeRanges:
		return kind + ":" + r.Ranges.String(), true
	}
	for _, item := range r.Set {
		if !plain(item, ",}") {
			return "", false
		}
	}
	return kind + ":" + r.Set.String(), true
}

// kindText returns what stands before the colon; false if the text form cannot
// hold it.
func kindText(k Kind) (string, bool) {
	text := k.Name()
	if !plain(text, ":;(){}[]") {
		return "", false
	}
	if *k.simple() == k {
		return text, true
	}
	m := k.ToProto()
	m.Name, m.Type = nil, nil
	stack := ""
	for _, r := range k.Reservations() {
		one, ok := r.text()
		if !ok {
			stack = ""
			break
		}
		stack += one
	}
	if stack != "" {
		text += stack
		m.Reservations = nil
	}
	if proto.Size(m) > 0 {
		text += compactJSON(m)
	}
	return text, true
}

// simple returns the kind of the same name and type and nothing else.
func (k Kind) simple() *Kind {
	s := newKind(kindKey{name: k.Name(), role: Unreserved, typ: k.typ}, "")
	return &s
}

// plain reports whether text can stand where one of the stops would end it.
func plain(text, stops string) bool {
	return text != "" && !strings.ContainsAny(text, stops) && strings.TrimSpace(text) == text
}

func compact(b []byte) string {
	var out bytes.Buffer
	if err := json.Compact(&out, b); err != nil {
		return string(b)
	}
	return out.String()
}
