package config

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
)

// decoder collects diagnostics, so that one run finds every error.
type decoder struct {
	diags hcl.Diagnostics
}

func (d *decoder) add(diags ...*hcl.Diagnostic) { d.diags = append(d.diags, diags...) }

// schema names what may stand in a block. A block named "role *" takes a label.
func schema(attributes []attribute, blocks ...string) *hcl.BodySchema {
	s := &hcl.BodySchema{}
	for _, a := range attributes {
		s.Attributes = append(s.Attributes, hcl.AttributeSchema{Name: a.name, Required: a.required})
	}
	for _, name := range blocks {
		kind, labels := strings.CutSuffix(name, " *")
		header := hcl.BlockHeaderSchema{Type: kind}
		if labels {
			header.LabelNames = []string{"name"}
		}
		s.Blocks = append(s.Blocks, header)
	}
	return s
}

// content reads a body; scope decodes its attributes.
func (d *decoder) content(body hcl.Body, s *hcl.BodySchema) (scope, hcl.Blocks) {
	content, diags := body.Content(s)
	d.add(diags...)
	if content == nil {
		content = &hcl.BodyContent{}
	}
	return scope{d, content.Attributes}, content.Blocks
}

// single gives the one block of a type, or nil, and complains about others.
func (d *decoder) single(blocks hcl.Blocks, kind string) *hcl.Block {
	var first *hcl.Block
	for _, block := range blocks {
		switch {
		case block.Type != kind:
		case first == nil:
			first = block
		default:
			d.add(duplicate(block.DefRange, first.DefRange, fmt.Sprintf("%s block", kind), "Only one may be written."))
		}
	}
	return first
}

// duplicate is an error that shows both places.
func duplicate(second, first hcl.Range, what, rule string) *hcl.Diagnostic {
	diag := invalid(second, "Duplicate "+what, "The first %s is at %s. %s", what, place(first), rule)
	diag.Extra = otherPlace{first}
	return diag
}

// byPlace sorts diagnostics as a reader meets their places: those without one
// first, then by file and line.
func byPlace(diags hcl.Diagnostics) hcl.Diagnostics {
	slices.SortStableFunc(diags, func(a, b *hcl.Diagnostic) int {
		if a.Subject == nil || b.Subject == nil {
			return cmp.Compare(boolInt(a.Subject != nil), boolInt(b.Subject != nil))
		}
		return cmp.Or(
			cmp.Compare(a.Subject.Filename, b.Subject.Filename),
			cmp.Compare(a.Subject.Start.Byte, b.Subject.Start.Byte))
	})
	return diags
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scope decodes the attributes of one block into variables. A variable whose
// attribute is absent or wrong is left alone. Each method gives the place of the
// value and whether there is a good one.
type scope struct {
	d     *decoder
	attrs hcl.Attributes
}

func (s scope) value(name string, want cty.Type) (cty.Value, hcl.Range, bool) {
	attr := s.attrs[name]
	if attr == nil {
		return cty.NilVal, hcl.Range{}, false
	}
	value, diags := evaluate(name, attr.Expr, want)
	s.d.add(diags...)
	return value, attr.Expr.Range(), value != cty.NilVal
}

func (s scope) text(name string, to *string) (hcl.Range, bool) {
	value, rng, ok := s.value(name, cty.String)
	if ok {
		*to = value.AsString()
	}
	return rng, ok
}

// oneOf reads a text that must be one of the words.
func (s scope) oneOf(name string, to *string, words ...string) {
	var got string
	rng, ok := s.text(name, &got)
	switch {
	case !ok:
	case slices.Contains(words, got):
		*to = got
	default:
		s.d.add(invalid(rng, "Unknown word", "%s is %q; it must be one of %s.%s",
			name, got, strings.Join(words, ", "), suggest(got, words)))
	}
}

// path reads a path and resolves it against the file that it stands in.
func (s scope) path(name string, to *string) {
	var got string
	rng, ok := s.text(name, &got)
	switch {
	case !ok:
	case got == "":
		s.d.add(invalid(rng, "Empty path", "%s must name a file or directory.", name))
	default:
		*to = beside(rng.Filename, got)
	}
}

func (s scope) flag(name string, to *bool) {
	if value, _, ok := s.value(name, cty.Bool); ok {
		*to = value.True()
	}
}

func (s scope) duration(name string, to *time.Duration, least time.Duration) {
	var got string
	rng, ok := s.text(name, &got)
	if !ok {
		return
	}
	d, err := parseDuration(got)
	switch {
	case err != nil:
		s.d.add(invalid(rng, "Bad duration", "In %s: %s.", name, err))
	case d < least:
		s.d.add(invalid(rng, "Bad duration", "%s is %s; it must be at least %s.", name, got, least))
	default:
		*to = d
	}
}

func (s scope) size(name string, to *int64, least int64) {
	value, rng, ok := s.value(name, cty.DynamicPseudoType)
	if !ok {
		return
	}
	n, err := sizeValue(value)
	switch {
	case err != nil:
		s.d.add(invalid(rng, "Bad size", "In %s: %s.", name, err))
	case n < least:
		s.d.add(invalid(rng, "Bad size", "%s is %d bytes; it must be at least %d.", name, n, least))
	default:
		*to = n
	}
}

func (s scope) count(name string, to *int, least int) {
	value, rng, ok := s.value(name, cty.Number)
	if !ok {
		return
	}
	n, err := wholeNumber(value)
	switch {
	case err != nil:
		s.d.add(invalid(rng, "Bad number", "In %s: %s.", name, err))
	case n < int64(least) || n > math.MaxInt32:
		s.d.add(invalid(rng, "Bad number", "%s is %d; it must be between %d and %d.", name, n, least, math.MaxInt32))
	default:
		*to = int(n)
	}
}

// number reads a double for which ok holds; rule says what that is.
func (s scope) number(name string, to *float64, ok func(float64) bool, rule string) {
	value, rng, there := s.value(name, cty.Number)
	if !there {
		return
	}
	n, err := double(value)
	switch {
	case err != nil:
		s.d.add(invalid(rng, "Bad number", "In %s: %s.", name, err))
	case !ok(n):
		s.d.add(invalid(rng, "Bad number", "%s is %s; it must be %s.", name, formatNumber(n), rule))
	default:
		*to = n
	}
}

// texts reads a list of strings, each with its place.
func (s scope) texts(name string, to *[]string) ([]hcl.Range, bool) {
	value, rng, ok := s.value(name, cty.List(cty.String))
	if !ok {
		return nil, false
	}
	list := []string{}
	for it := value.ElementIterator(); it.Next(); {
		_, element := it.Element()
		if element.IsNull() {
			s.d.add(invalid(rng, "Wrong type", "An element of %s is null; it must be a string.", name))
			return nil, false
		}
		list = append(list, element.AsString())
	}
	*to = list
	return elementRanges(s.attrs[name].Expr, len(list)), true
}

// elementRanges gives the place of each element of a list, or the place of the
// whole where the elements have none of their own.
func elementRanges(expr hcl.Expression, n int) []hcl.Range {
	ranges := make([]hcl.Range, n)
	elements, diags := hcl.ExprList(expr)
	for i := range ranges {
		ranges[i] = expr.Range()
		if !diags.HasErrors() && len(elements) == n {
			ranges[i] = elements[i].Range()
		}
	}
	return ranges
}

// address reads host:port and gives the place of the value if it was good.
func (s scope) address(name string, to *string) (hcl.Range, bool) {
	var got string
	rng, ok := s.text(name, &got)
	if !ok {
		return rng, false
	}
	if err := checkAddress(got, true); err != nil {
		s.d.add(invalid(rng, "Bad address", "In %s: %s.", name, err))
		return rng, false
	}
	*to = got
	return rng, true
}

// checkAddress complains about what is not host:port. A listener may have no
// host (all interfaces) and port 0 (a free one).
func checkAddress(text string, listener bool) error {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return fmt.Errorf(`%q is not an address; write host:port, such as "127.0.0.1:5061" or "[::1]:5061"`, text)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case err != nil:
		return fmt.Errorf("%q has a bad port; it must be a number up to 65535", text)
	case n == 0 && !listener:
		return fmt.Errorf("%q has port 0, which nobody can reach", text)
	case host == "" && !listener:
		return fmt.Errorf("%q has no host", text)
	case strings.ContainsAny(host, " \t\r\n/@\"'"):
		return fmt.Errorf("%q has a bad host", text)
	}
	return nil
}

// isLoopback tells whether only this machine reaches the listener. A name other
// than localhost counts as reachable: what it resolves to may change.
func isLoopback(address string) bool {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
