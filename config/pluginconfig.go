package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/convert"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// DecodePlugin decodes a plugin's config block, as the operator wrote it,
// against the schema that the plugin told. The JSON is what Configure receives:
// durations are nanoseconds, sizes bytes, defaults are filled in, and what has
// neither a value nor a default is absent, as is a block that was not written.
// It is nil when there is an error.
//
// The body is walked here, not by hcldec, whose values have lost the place that
// they came from, which complaints about durations and sizes need.
func DecodePlugin(p Plugin, schema *pluginv1.Schema) ([]byte, hcl.Diagnostics) {
	d := &pluginDecoder{plugin: p}
	values := d.body(p.Body, schema, p.header())
	byPlace(d.diags)
	if d.diags.HasErrors() {
		return nil, d.diags
	}
	out, err := json.Marshal(values)
	if err != nil {
		d.broken("", err)
		return nil, d.diags
	}
	return out, d.diags
}

// header is the place to blame for what is not written: the config block, else
// the plugin's block, else nothing.
func (p Plugin) header() *hcl.Range {
	switch {
	case p.ConfigRange != hcl.Range{}:
		return &p.ConfigRange
	case p.DefRange != hcl.Range{}:
		return &p.DefRange
	}
	return nil
}

type pluginDecoder struct {
	decoder
	plugin Plugin
}

// broken is an error that the plugin's author must mend, not the operator.
func (d *pluginDecoder) broken(name string, err error) {
	d.add(&hcl.Diagnostic{
		Severity: hcl.DiagError,
		Summary:  "Plugin with a broken schema",
		Detail:   fmt.Sprintf("%s describes its setting %q wrongly: %s. Report this to the plugin's author.", d.plugin.ID(), name, err),
		Subject:  d.plugin.header(),
	})
}

// bodySchema is a plugin's schema as HCL sees it. Nothing is required here:
// what is missing is found by whoever knows where to point.
func bodySchema(s *pluginv1.Schema) *hcl.BodySchema {
	out := &hcl.BodySchema{}
	for _, a := range s.GetAttributes() {
		out.Attributes = append(out.Attributes, hcl.AttributeSchema{Name: a.GetName()})
	}
	for _, b := range s.GetBlocks() {
		header := hcl.BlockHeaderSchema{Type: b.GetName()}
		if b.GetLabel() != "" {
			header.LabelNames = []string{b.GetLabel()}
		}
		out.Blocks = append(out.Blocks, header)
	}
	return out
}

// body decodes one block. at is the place to blame for what is not written.
func (d *pluginDecoder) body(body hcl.Body, s *pluginv1.Schema, at *hcl.Range) map[string]any {
	content, diags := body.Content(bodySchema(s))
	d.add(d.hideSecrets(diags, s)...)
	values := map[string]any{}
	if content == nil {
		return values
	}
	for _, a := range s.GetAttributes() {
		if value, ok := d.attribute(content.Attributes[a.GetName()], a, at); ok {
			values[a.GetName()] = value
		}
	}
	for _, b := range s.GetBlocks() {
		if value, ok := d.blocks(content.Blocks, b, at); ok {
			values[b.GetName()] = value
		}
	}
	return values
}

// hideSecrets marks complaints of HCL's own about secret attributes.
func (d *pluginDecoder) hideSecrets(diags hcl.Diagnostics, s *pluginv1.Schema) hcl.Diagnostics {
	for _, a := range s.GetAttributes() {
		for _, diag := range diags {
			if a.GetSecret() && strings.Contains(diag.Detail, `"`+a.GetName()+`"`) {
				diag.Extra = secretPlace{}
			}
		}
	}
	return diags
}

// attribute gives the value of an attribute, or its default.
func (d *pluginDecoder) attribute(attr *hcl.Attribute, a *pluginv1.Attribute, at *hcl.Range) (any, bool) {
	if attr != nil {
		value, diags := evaluate(a.GetName(), attr.Expr, cty.DynamicPseudoType)
		if diags.HasErrors() || value != cty.NilVal {
			result, ok := d.convert(value, a, attr.Expr.Range(), diags)
			return result, ok
		}
		at = attr.Range.Ptr() // null: as if it were not written
	}
	switch {
	case a.GetRequired():
		d.add(&hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Missing required argument",
			Detail:   fmt.Sprintf("%s requires %q.%s", d.plugin.ID(), a.GetName(), sentence(a.GetHelp())),
			Subject:  at,
		})
	case a.GetDefaultJson() == "":
	case !json.Valid([]byte(a.GetDefaultJson())):
		d.broken(a.GetName(), errors.New("its default is not JSON"))
	default:
		return json.RawMessage(a.GetDefaultJson()), true
	}
	return nil, false
}

// sentence is a help text as the end of a paragraph.
func sentence(help string) string {
	help = strings.TrimSpace(help)
	if help == "" {
		return ""
	}
	return " " + strings.ToUpper(help[:1]) + strings.TrimSuffix(help[1:], ".") + "."
}

// convert makes a value what Configure expects. Neither the value of a secret
// nor its line is shown.
func (d *pluginDecoder) convert(value cty.Value, a *pluginv1.Attribute, rng hcl.Range, diags hcl.Diagnostics) (any, bool) {
	var result any
	if !diags.HasErrors() {
		var err error
		var word string
		result, word, err = typed(value, a.GetType())
		switch {
		case errors.Is(err, errUnknownType):
			d.broken(a.GetName(), err)
			return nil, false
		case err != nil && a.GetSecret():
			diags = append(diags, invalid(rng, "Wrong value", "%s must be %s. Its value is secret and not shown.", a.GetName(), word))
		case err != nil:
			diags = append(diags, invalid(rng, "Wrong value", "%s must be %s: %s.", a.GetName(), word, err))
		}
	}
	if a.GetSecret() {
		for _, diag := range diags {
			diag.Extra = secretPlace{}
		}
	}
	d.add(diags...)
	return result, !diags.HasErrors()
}

var errUnknownType = errors.New("its type is not known to this version of Mezzo")

// typed gives a value as Go's JSON encoder is to have it, and the word for the
// type.
func typed(value cty.Value, t pluginv1.Type) (result any, word string, err error) {
	switch t {
	case pluginv1.Type_TYPE_STRING:
		s, err := as(value, cty.String)
		return text(s), "a string", err
	case pluginv1.Type_TYPE_BOOL:
		b, err := as(value, cty.Bool)
		return err == nil && b.True(), "true or false", err
	case pluginv1.Type_TYPE_INT:
		n, err := as(value, cty.Number)
		if err != nil {
			return nil, "a whole number", err
		}
		result, err = wholeNumber(n)
		return result, "a whole number", err
	case pluginv1.Type_TYPE_NUMBER:
		n, err := as(value, cty.Number)
		if err != nil {
			return nil, "a number", err
		}
		result, err = double(n)
		return result, "a number", err
	case pluginv1.Type_TYPE_DURATION:
		const word = `a duration such as "10s"`
		s, err := as(value, cty.String)
		if err != nil {
			return nil, word, err
		}
		length, err := parseDuration(s.AsString())
		return length.Nanoseconds(), word, err
	case pluginv1.Type_TYPE_SIZE:
		result, err = sizeValue(value)
		return result, `a size such as "64MiB", or a number of bytes`, err
	case pluginv1.Type_TYPE_STRING_LIST:
		const word = "a list of strings"
		list, err := as(value, cty.List(cty.String))
		if err != nil {
			return nil, word, err
		}
		out := []string{}
		for _, element := range list.AsValueSlice() {
			if element.IsNull() {
				return nil, word, errors.New("an element is null")
			}
			out = append(out, element.AsString())
		}
		return out, word, nil
	case pluginv1.Type_TYPE_STRING_MAP:
		const word = "a map of strings"
		m, err := as(value, cty.Map(cty.String))
		if err != nil {
			return nil, word, err
		}
		out := map[string]string{}
		for key, element := range m.AsValueMap() {
			if element.IsNull() {
				return nil, word, fmt.Errorf("the value of %q is null", key)
			}
			out[key] = element.AsString()
		}
		return out, word, nil
	}
	return nil, "", errUnknownType
}

// as converts a value, with an error that says what it is instead.
func as(value cty.Value, want cty.Type) (cty.Value, error) {
	converted, err := convert.Convert(value, want)
	if err != nil && want.IsPrimitiveType() {
		return cty.NilVal, fmt.Errorf("it is %s", article(value.Type()))
	}
	return converted, err
}

func text(value cty.Value) string {
	if value == cty.NilVal {
		return ""
	}
	return value.AsString()
}

// blocks decodes the blocks of one type: an object, or an array when repeated.
func (d *pluginDecoder) blocks(all hcl.Blocks, b *pluginv1.Block, at *hcl.Range) (any, bool) {
	objects := []map[string]any{}
	var first *hcl.Block
	for _, block := range all {
		if block.Type != b.GetName() {
			continue
		}
		if first != nil && !b.GetRepeated() {
			d.add(duplicate(block.DefRange, first.DefRange, block.Type+" block", "Only one may be written."))
			continue
		}
		if first == nil {
			first = block
		}
		object := d.body(block.Body, b.GetSchema(), block.DefRange.Ptr())
		if b.GetLabel() != "" {
			object[b.GetLabel()] = block.Labels[0]
		}
		objects = append(objects, object)
	}
	switch {
	case len(objects) == 0 && b.GetRequired():
		d.add(&hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  "Missing required block",
			Detail:   fmt.Sprintf("%s requires a block %q.%s", d.plugin.ID(), b.GetName(), sentence(b.GetHelp())),
			Subject:  at,
		})
		return nil, false
	case len(objects) == 0:
		return nil, false
	case b.GetRepeated():
		return objects, true
	}
	return objects[0], true
}
