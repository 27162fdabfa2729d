package config

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/hcl/v2"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

var update = flag.Bool("update", false, "write the golden files, and the tables of docs/configuration.md")

// golden compares text with a golden file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("no golden file (run the test with -update): %v", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// inputs lists the files and, if asked for, directories of a folder.
func inputs(t *testing.T, dir string, directories bool) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		switch {
		case name == "plugin" || name == "check" || name == "fuzz":
		case entry.IsDir() && directories, strings.HasSuffix(name, ".hcl"), strings.HasSuffix(name, ".json"):
			list = append(list, filepath.Join(dir, name))
		}
	}
	if len(list) == 0 {
		t.Fatalf("no inputs in %s", dir)
	}
	return list
}

func setEnvironment(t *testing.T) {
	t.Setenv("MEZZO_TEST_HOST", "h1")
	t.Setenv("MEZZO_TEST_UNSET", "") // so that it is put back after the test
	if err := os.Unsetenv("MEZZO_TEST_UNSET"); err != nil {
		t.Fatal(err)
	}
}

// TestLoad compares what every input resolves to, or its exact diagnostics.
func TestLoad(t *testing.T) {
	setEnvironment(t)
	for _, input := range inputs(t, "testdata", true) {
		t.Run(filepath.Base(input), func(t *testing.T) {
			golden(t, input+".golden", resolve(t, input))
		})
	}
}

// TestExamples is that every example that people copy works.
func TestExamples(t *testing.T) {
	for _, input := range inputs(t, "examples", false) {
		t.Run(filepath.Base(input), func(t *testing.T) {
			got := resolve(t, input)
			if strings.Contains(got, "Error:") || strings.Contains(got, "Warning:") {
				t.Errorf("the example does not load:\n%s", got)
			}
			golden(t, filepath.Join("testdata", "example-"+filepath.Base(input)+".golden"), got)
		})
	}
}

// TestExamplesStart is that nothing keeps an example from starting but the
// certificates, which are the operator's.
func TestExamplesStart(t *testing.T) {
	for _, input := range inputs(t, "examples", false) {
		file, diags := Load([]string{input})
		defaults := Defaults{Executable: "/usr/bin/mezzo", DataDir: "/d"}
		if file.HasMaster() {
			master, more := file.ForMaster(defaults)
			diags = append(append(diags, more...), master.Check()...)
		}
		if file.HasAgent() {
			agent, more := file.ForAgent(defaults)
			diags = append(append(diags, more...), agent.Check()...)
		}
		for _, d := range diags {
			if d.Summary != "Unusable TLS file" {
				t.Errorf("%s: a start says: %v", input, d)
			}
		}
	}
}

// resolve gives what an input resolves to for the processes it is for.
func resolve(t *testing.T, input string) string {
	var out bytes.Buffer
	file, diags := Load([]string{input})
	if !diags.HasErrors() {
		defaults := Defaults{Executable: "/usr/bin/mezzo"}
		if filepath.Base(input) == "dev.hcl" {
			defaults.DataDir = "/tmp/dev"
		}
		both := file.HasMaster() == file.HasAgent()
		if both || file.HasMaster() {
			master, more := file.ForMaster(defaults)
			diags = append(diags, more...)
			dump(&out, "", "Master", reflect.ValueOf(master))
		}
		if both || file.HasAgent() {
			agent, more := file.ForAgent(defaults)
			diags = append(diags, more...)
			dump(&out, "", "Agent", reflect.ValueOf(agent))
		}
	}
	if diags.HasErrors() {
		out.Reset() // nothing is half-resolved
	}
	writeDiagnostics(t, &out, file, diags)
	return out.String()
}

func writeDiagnostics(t *testing.T, out *bytes.Buffer, file *File, diags hcl.Diagnostics) {
	t.Helper()
	if err := WriteDiagnostics(out, file.Sources(), diags, Format{Width: 100}); err != nil {
		t.Fatal(err)
	}
}

// TestCheck compares what keeps a process from starting, with its places.
func TestCheck(t *testing.T) {
	for _, input := range inputs(t, "testdata/check", false) {
		t.Run(filepath.Base(input), func(t *testing.T) {
			file, diags := Load([]string{input})
			master, more := file.ForMaster(Defaults{Executable: "/usr/bin/mezzo"})
			agent, most := file.ForAgent(Defaults{Executable: "/usr/bin/mezzo"})
			if diags = append(append(diags, more...), most...); diags.HasErrors() {
				t.Fatal(diags)
			}
			var out bytes.Buffer
			out.WriteString("# master\n\n")
			writeDiagnostics(t, &out, file, master.Check())
			out.WriteString("# agent\n\n")
			writeDiagnostics(t, &out, file, agent.Check())
			golden(t, input+".golden", out.String())
		})
	}
}

// dump prints the fields of a value that are not zero.
func dump(out *bytes.Buffer, indent, name string, v reflect.Value) {
	if v.IsZero() || v.Kind() == reflect.Interface {
		return
	}
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	switch value := v.Interface().(type) {
	case hcl.Range:
		fmt.Fprintf(out, "%s%s: %s\n", indent, name, place(value))
		return
	case fmt.Stringer:
		fmt.Fprintf(out, "%s%s: %s\n", indent, name, value)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		fmt.Fprintf(out, "%s%s:\n", indent, name)
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				dump(out, indent+"  ", field.Name, v.Field(i))
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			dump(out, indent, fmt.Sprintf("%s[%d]", name, i), v.Index(i))
		}
	default:
		fmt.Fprintf(out, "%s%s: %#v\n", indent, name, v.Interface())
	}
}

// testSchema has an attribute of every type, and every sort of block.
func testSchema() *pluginv1.Schema {
	attr := func(name string, t pluginv1.Type, def string) *pluginv1.Attribute {
		return &pluginv1.Attribute{Name: name, Type: t, DefaultJson: def}
	}
	return &pluginv1.Schema{
		Attributes: []*pluginv1.Attribute{
			{Name: "name", Type: pluginv1.Type_TYPE_STRING, Required: true, Help: "what to call it"},
			attr("enabled", pluginv1.Type_TYPE_BOOL, "true"),
			attr("count", pluginv1.Type_TYPE_INT, ""),
			attr("ratio", pluginv1.Type_TYPE_NUMBER, "0.5"),
			attr("after", pluginv1.Type_TYPE_DURATION, "2000000000"),
			attr("limit", pluginv1.Type_TYPE_SIZE, "1048576"),
			attr("words", pluginv1.Type_TYPE_STRING_LIST, `["cpu"]`),
			attr("labels", pluginv1.Type_TYPE_STRING_MAP, ""),
			{Name: "password", Type: pluginv1.Type_TYPE_STRING, Secret: true},
		},
		Blocks: []*pluginv1.Block{
			{Name: "preempt", Schema: &pluginv1.Schema{Attributes: []*pluginv1.Attribute{
				attr("grace", pluginv1.Type_TYPE_DURATION, "1000000000"),
			}}},
			{Name: "rule", Repeated: true, Label: "name", Schema: &pluginv1.Schema{Attributes: []*pluginv1.Attribute{
				attr("order", pluginv1.Type_TYPE_INT, ""),
			}}},
		},
	}
}

var complaintLine = regexp.MustCompile(`# (complaint|warning) (\S*): ([^"\n]*)`)

// TestPlugin decodes config blocks against testSchema. A comment
// `# complaint PATH: TEXT` is what the plugin says to the result.
func TestPlugin(t *testing.T) {
	setEnvironment(t)
	for _, input := range inputs(t, "testdata/plugin", false) {
		t.Run(filepath.Base(input), func(t *testing.T) {
			file, diags := Load([]string{input})
			master, more := file.ForMaster(Defaults{Executable: "/usr/bin/mezzo"})
			if diags = append(diags, more...); diags.HasErrors() {
				t.Fatal(diags)
			}
			var out bytes.Buffer
			decoded, diags := DecodePlugin(*master.Allocator, testSchema())
			if (decoded == nil) != diags.HasErrors() {
				t.Errorf("JSON %q with diagnostics %v", decoded, diags)
			}
			fmt.Fprintf(&out, "%s\n\n", decoded)
			diags = append(diags, PluginDiagnostics(*master.Allocator, testSchema(), complaints(t, input))...)
			writeDiagnostics(t, &out, file, diags)
			if strings.Contains(out.String(), "hunter2") && decoded == nil {
				t.Error("a diagnostic shows a secret")
			}
			golden(t, input+".golden", out.String())
		})
	}
}

func complaints(t *testing.T, input string) (list []*pluginv1.Diagnostic) {
	src, err := os.ReadFile(input)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range complaintLine.FindAllStringSubmatch(string(src), -1) {
		c := &pluginv1.Diagnostic{Severity: pluginv1.Severity_SEVERITY_ERROR, Summary: m[3], Detail: "Says the plugin."}
		if m[1] == "warning" {
			c.Severity = pluginv1.Severity_SEVERITY_WARNING
		}
		if m[2] != "" {
			c.Path = strings.Split(m[2], ".")
		}
		list = append(list, c)
	}
	return list
}
