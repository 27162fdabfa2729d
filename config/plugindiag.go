package config

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// PluginDiagnostics turns a plugin's own complaints about its configuration into
// diagnostics at the operator's lines. schema is the one that the body was
// decoded against. A complaint about something that is not written points at the
// nearest block around it; one about a plugin that has no block has no place.
func PluginDiagnostics(p Plugin, schema *pluginv1.Schema, complaints []*pluginv1.Diagnostic) hcl.Diagnostics {
	var diags hcl.Diagnostics
	for _, c := range complaints {
		found := locate(p.Body, schema, c.GetPath(), p.header())
		diag := &hcl.Diagnostic{
			Severity: hcl.DiagError,
			Summary:  p.ID() + ": " + c.GetSummary(),
			Detail:   c.GetDetail(),
			Subject:  found.rng,
		}
		if c.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING {
			diag.Severity = hcl.DiagWarning
		}
		if !found.exact && len(c.GetPath()) > 0 {
			diag.Detail = strings.TrimSpace(fmt.Sprintf("%s (About %s, which is not written here.)", diag.Detail, strings.Join(c.GetPath(), ".")))
		}
		if found.secret {
			diag.Extra = secretPlace{}
		}
		diags = append(diags, diag)
	}
	return diags
}

// found is the place that a path leads to.
type found struct {
	rng    *hcl.Range
	exact  bool // all of the path was found
	secret bool
}

// locate follows a path through a body. at is the header of the block that the
// body belongs to.
func locate(body hcl.Body, s *pluginv1.Schema, path []string, at *hcl.Range) found {
	if len(path) == 0 {
		return found{rng: at, exact: true}
	}
	content, _, _ := body.PartialContent(bodySchema(s))
	if content == nil {
		return found{rng: at}
	}
	for _, a := range s.GetAttributes() {
		if a.GetName() != path[0] {
			continue
		}
		attr := content.Attributes[path[0]]
		if attr == nil {
			return found{rng: at, secret: a.GetSecret()}
		}
		rng, exact := element(attr.Expr, path[1:])
		return found{rng: &rng, exact: exact, secret: a.GetSecret()}
	}
	for _, b := range s.GetBlocks() {
		if b.GetName() == path[0] {
			return locateBlock(content.Blocks.OfType(path[0]), b, path[1:], at)
		}
	}
	return found{rng: at}
}

// locateBlock follows a path whose first step led to blocks of one type.
func locateBlock(blocks hcl.Blocks, b *pluginv1.Block, path []string, at *hcl.Range) found {
	index := 0
	if b.GetRepeated() && len(path) > 0 {
		n, err := strconv.Atoi(path[0])
		if err != nil {
			n = -1
		}
		index, path = n, path[1:]
	}
	if index < 0 || index >= len(blocks) {
		return found{rng: at}
	}
	block := blocks[index]
	if b.GetLabel() != "" && len(path) == 1 && path[0] == b.GetLabel() && len(block.LabelRanges) > 0 {
		return found{rng: &block.LabelRanges[0], exact: true}
	}
	return locate(block.Body, b.GetSchema(), path, &block.DefRange)
}

// element follows a path into a list or map that is written out; the nearest
// expression around it is the place when it does not lead there.
func element(expr hcl.Expression, path []string) (rng hcl.Range, exact bool) {
	if len(path) == 0 {
		return expr.Range(), true
	}
	if list, diags := hcl.ExprList(expr); !diags.HasErrors() {
		if n, err := strconv.Atoi(path[0]); err == nil && n >= 0 && n < len(list) {
			return element(list[n], path[1:])
		}
	}
	if pairs, diags := hcl.ExprMap(expr); !diags.HasErrors() {
		for _, pair := range pairs {
			key, diags := pair.Key.Value(evalContext(pair.Key.Range().Filename))
			if !diags.HasErrors() && key.IsKnown() && !key.IsNull() && text(key) == path[0] {
				return element(pair.Value, path[1:])
			}
		}
	}
	return expr.Range(), false
}
