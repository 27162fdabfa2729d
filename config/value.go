package config

import (
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/agext/levenshtein"
	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"
	"github.com/zclconf/go-cty/cty/function"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// maxExponent bounds a number before it is made a text with all its digits.
const maxExponent = 4096

// evalContext gives the functions that an expression in the named file may
// call. It depends on the file, because file() is relative to it.
func evalContext(filename string) *hcl.EvalContext {
	return &hcl.EvalContext{Functions: map[string]function.Function{
		"env": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "name", Type: cty.String}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				name := args[0].AsString()
				value, ok := os.LookupEnv(name)
				if !ok {
					return cty.NilVal, function.NewArgErrorf(0, "the environment variable %s is not set", name)
				}
				return cty.StringVal(value), nil
			},
		}),
		"file": function.New(&function.Spec{
			Params: []function.Parameter{{Name: "path", Type: cty.String}},
			Type:   function.StaticReturnType(cty.String),
			Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
				path := beside(filename, args[0].AsString())
				src, err := readBounded(path)
				if err != nil {
					return cty.NilVal, function.NewArgErrorf(0, "cannot read %s: %s", path, reason(err))
				}
				if !utf8.Valid(src) {
					return cty.NilVal, function.NewArgErrorf(0, "%s is not UTF-8 text", path)
				}
				return cty.StringVal(string(src)), nil
			},
		}),
	}}
}

// beside resolves a path that stands in the named file.
func beside(filename, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(filename), path)
}

// evaluate gives the value of an expression as the type wanted. A value that is
// null counts as not written: it gives cty.NilVal and no diagnostics.
func evaluate(name string, expr hcl.Expression, want cty.Type) (cty.Value, hcl.Diagnostics) {
	rng := expr.Range()
	value, diags := expr.Value(evalContext(rng.Filename))
	if diags.HasErrors() {
		return cty.NilVal, diags
	}
	value, _ = value.UnmarkDeep()
	if value.IsNull() {
		return cty.NilVal, diags
	}
	if value.Type() == cty.Number && value.IsKnown() && value.AsBigFloat().MantExp(nil) > maxExponent {
		return cty.NilVal, append(diags, invalid(rng, "Number too large", "The value of %s is out of any range.", name))
	}
	converted, err := convert.Convert(value, want)
	switch {
	case err != nil:
		return cty.NilVal, append(diags, wrongType(name, rng, want, value, err))
	case !converted.IsWhollyKnown():
		return cty.NilVal, append(diags, invalid(rng, "Value not known", "The value of %s cannot be told.", name))
	}
	return converted, diags
}

func wrongType(name string, rng hcl.Range, want cty.Type, got cty.Value, err error) *hcl.Diagnostic {
	if want.IsPrimitiveType() {
		return invalid(rng, "Wrong type", "%s must be %s, not %s.", name, article(want), article(got.Type()))
	}
	return invalid(rng, "Wrong type", "%s must be %s: %s.", name, article(want), err)
}

func article(t cty.Type) string {
	switch {
	case t == cty.String:
		return "a string"
	case t == cty.Number:
		return "a number"
	case t == cty.Bool:
		return "true or false"
	case t.IsListType(), t.IsTupleType(), t.IsSetType():
		return "a list"
	case t.IsMapType(), t.IsObjectType():
		return "a map"
	default:
		return t.FriendlyName()
	}
}

// invalid is an error at one place.
func invalid(rng hcl.Range, summary, format string, args ...any) *hcl.Diagnostic {
	return &hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  summary,
		Detail:   fmt.Sprintf(format, args...),
		Subject:  &rng,
	}
}

// place is "file:line,column", as HCL prints it, for naming a second place.
func place(rng hcl.Range) string {
	return fmt.Sprintf("%s:%d,%d", rng.Filename, rng.Start.Line, rng.Start.Column)
}

// suggest is " Did you mean …?" when one of the known words is near.
func suggest(given string, known []string) string {
	for _, word := range known {
		if levenshtein.Distance(given, word, nil) < 3 {
			return fmt.Sprintf(" Did you mean %q?", word)
		}
	}
	return ""
}

// parseDuration is time.ParseDuration with an error that tells what to write.
func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, fmt.Errorf(`%q is not a duration; write a number and a unit, such as "500ms", "10s", "5m" or "2h"`, text)
	case d < 0:
		return 0, fmt.Errorf("%q is negative", text)
	}
	return d, nil
}

// sizeValue reads a size that was written as a string or as a number.
func sizeValue(value cty.Value) (int64, error) {
	text, err := convert.Convert(value, cty.String)
	if err != nil {
		return 0, fmt.Errorf(`a size is a string such as "64MiB" or a number of bytes, not %s`, article(value.Type()))
	}
	size, err := plugin.ParseSize(text.AsString())
	return int64(size), err
}

// wholeNumber reads a 64-bit integer out of a number.
func wholeNumber(value cty.Value) (int64, error) {
	f := value.AsBigFloat()
	n, accuracy := f.Int64()
	switch {
	case !f.IsInt():
		return 0, fmt.Errorf("%s is not a whole number", f.Text('g', 20))
	case accuracy != big.Exact:
		return 0, fmt.Errorf("%s does not fit in 64 bits", f.Text('g', 20))
	}
	return n, nil
}

// double reads a finite double out of a number.
func double(value cty.Value) (float64, error) {
	n, _ := value.AsBigFloat().Float64()
	if math.IsInf(n, 0) {
		return 0, fmt.Errorf("%s is too large", value.AsBigFloat().Text('g', 20))
	}
	return n, nil
}

func formatNumber(n float64) string { return strconv.FormatFloat(n, 'g', -1, 64) }
