package plugin

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// introduce is what a person reads who has started a plugin by hand.
func introduce(def Definition) string {
	description, err := def.describe()
	if err != nil {
		return err.Error() + "\n"
	}
	kind := KindName(def.Kind)
	daemon := "master"
	if def.Kind == Isolator {
		daemon = "agent"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "This is a Mezzo plugin. `mezzo %s` starts it; it does nothing by itself.\n\n", daemon)
	fmt.Fprintf(&b, "  kind      %s\n  name      %s\n  version   %s\n  contract  %s\n", kind, def.Name, def.Version, joinVersions(def.versions()))
	if def.Summary != "" {
		fmt.Fprintf(&b, "  summary   %s\n", def.Summary)
	}
	binary := BinaryName(def.Kind, def.Name)
	fmt.Fprintf(&b, "\nTo use it, install this file as %s in the plugin_dir and write in %s.hcl:\n\n", binary, daemon)
	fmt.Fprintf(&b, "  %s %q {\n", kind, def.Name)
	if self := filepath.Base(os.Args[0]); self != binary {
		fmt.Fprintf(&b, "    # path = %q, if it keeps another name\n", "/…/"+self)
	}
	writeConfig(&b, description.GetSchema())
	b.WriteString("  }\n")
	return b.String()
}

func joinVersions(versions []uint32) string {
	words := make([]string, len(versions))
	for i, v := range versions {
		words[i] = fmt.Sprint(v)
	}
	return strings.Join(words, ", ")
}

// writeConfig shows every setting: what is required as it must stand, the rest
// as comments.
func writeConfig(b *strings.Builder, schema *pluginv1.Schema) {
	if len(schema.GetAttributes()) == 0 && len(schema.GetBlocks()) == 0 {
		return
	}
	b.WriteString("    config {\n")
	for _, a := range schema.GetAttributes() {
		lead, value := "# ", inHCL(a)
		if a.GetRequired() {
			lead = ""
		}
		help := a.GetHelp()
		if help != "" {
			help = " # " + help
		}
		fmt.Fprintf(b, "      %s%s = %s%s\n", lead, a.GetName(), value, help)
	}
	for _, block := range schema.GetBlocks() {
		lead := "# "
		if block.GetRequired() {
			lead = ""
		}
		fmt.Fprintf(b, "      %s%s { … }\n", lead, block.GetName())
	}
	b.WriteString("    }\n")
}

// inHCL writes an attribute's default as an operator would; … where there is
// none.
func inHCL(a *pluginv1.Attribute) string {
	n, err := strconv.ParseInt(a.GetDefaultJson(), 10, 64)
	switch {
	case a.GetDefaultJson() == "":
		return "…"
	case err == nil && a.GetType() == pluginv1.Type_TYPE_DURATION:
		return strconv.Quote(time.Duration(n).String())
	case err == nil && a.GetType() == pluginv1.Type_TYPE_SIZE:
		return strconv.Quote(Size(n).String())
	}
	return a.GetDefaultJson()
}
