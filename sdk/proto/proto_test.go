// Package proto_test guards the wire: the v1 types against the schema of the
// Mesos v1 API, and the plugin contracts against what was released.
package proto_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/isolator/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/link/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/agent"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/allocator"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/maintenance"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/master"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/quota"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/resource_provider"
	_ "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

var update = flag.Bool("update", false, "write the descriptor snapshot of the plugin contracts anew")

// ownFields is the first number of fields that Mezzo added to v1 messages.
const ownFields = 10000

// TestV1Schema holds the v1 types against testdata/v1.txt, the schema of the
// Mesos v1 API as a list of facts: a client's bytes must decode here unchanged.
func TestV1Schema(t *testing.T) {
	want := readLines(t, "v1.txt")
	have := map[string]bool{}
	for _, line := range describe("mezzo.v1", true) {
		have[line] = true
	}
	known := map[string]bool{}
	for _, line := range want {
		if !have[line] {
			t.Errorf("missing or different: %s", line)
		}
		known[strings.Fields(line)[1]] = true
	}
	wanted := map[string]bool{}
	for _, line := range want {
		wanted[line] = true
	}
	for line := range have {
		if subject := strings.Fields(line)[1]; known[subject] && !wanted[line] {
			t.Errorf("not in the v1 schema (fields of our own have numbers from %d): %s", ownFields, line)
		}
	}
	if len(want) < 1500 {
		t.Errorf("the schema has %d facts, too few to be whole", len(want))
	}
}

// TestContractSnapshot fails when a plugin contract is not what was committed.
// Within a version a contract may only grow: review the difference for that.
func TestContractSnapshot(t *testing.T) {
	var lines []string
	for _, p := range []string{"mezzo.plugin.v1", "mezzo.allocator.v1", "mezzo.isolator.v1", "mezzo.framework.v1"} {
		lines = append(lines, describe(protoreflect.FullName(p), false)...)
	}
	if len(lines) < 200 {
		t.Fatalf("the contracts have %d facts, too few to be whole", len(lines))
	}
	path := filepath.Join("testdata", "contracts.txt")
	text := strings.Join(lines, "\n") + "\n"
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have := map[string]bool{}
	for _, line := range lines {
		have[line] = true
	}
	want := map[string]bool{}
	for _, line := range readLines(t, "contracts.txt") {
		want[line] = true
		if !have[line] {
			t.Errorf("removed or changed: %s", line)
		}
	}
	for _, line := range lines {
		if !want[line] {
			t.Errorf("new (if it only adds: go test ./sdk/proto -update): %s", line)
		}
	}
}

// TestHotMessagesCarryNoMaps guards what a plugin boundary costs.
func TestHotMessagesCarryNoMaps(t *testing.T) {
	for _, name := range []protoreflect.FullName{"mezzo.allocator.v1.FromCore", "mezzo.allocator.v1.FromAllocator"} {
		descriptor, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		if err != nil {
			t.Fatal(err)
		}
		checkNoMaps(t, descriptor.(protoreflect.MessageDescriptor), map[protoreflect.FullName]bool{})
	}
}

func checkNoMaps(t *testing.T, m protoreflect.MessageDescriptor, seen map[protoreflect.FullName]bool) {
	if seen[m.FullName()] {
		return
	}
	seen[m.FullName()] = true
	for i := 0; i < m.Fields().Len(); i++ {
		f := m.Fields().Get(i)
		if f.IsMap() {
			t.Errorf("%s is a map", f.FullName())
		} else if f.Message() != nil {
			checkNoMaps(t, f.Message(), seen)
		}
	}
}

// describe lists every fact of a package and, for v1, of the packages below it.
func describe(pkg protoreflect.FullName, below bool) []string {
	var lines []string
	protoregistry.GlobalFiles.RangeFiles(func(file protoreflect.FileDescriptor) bool {
		if file.Package() == pkg || below && strings.HasPrefix(string(file.Package()), string(pkg)+".") {
			lines = append(lines, describeScope(file)...)
			if !below {
				lines = append(lines, describeServices(file)...)
			}
		}
		return true
	})
	sort.Strings(lines)
	return lines
}

type scope interface {
	Messages() protoreflect.MessageDescriptors
	Enums() protoreflect.EnumDescriptors
}

func describeScope(s scope) []string {
	var lines []string
	for i := 0; i < s.Enums().Len(); i++ {
		e := s.Enums().Get(i)
		line := "enum " + string(e.FullName())
		for j := 0; j < e.Values().Len(); j++ {
			line += fmt.Sprintf(" %s=%d", e.Values().Get(j).Name(), e.Values().Get(j).Number())
		}
		lines = append(lines, line)
	}
	for i := 0; i < s.Messages().Len(); i++ {
		m := s.Messages().Get(i)
		if m.IsMapEntry() {
			continue
		}
		lines = append(lines, "message "+string(m.FullName()))
		for j := 0; j < m.Fields().Len(); j++ {
			if f := m.Fields().Get(j); f.Number() < ownFields {
				lines = append(lines, fmt.Sprintf("field %s %d %s %s %s%s", m.FullName(), f.Number(), f.Name(), typeOf(f), labelOf(f), defaultOf(f)))
			}
		}
		lines = append(lines, describeScope(m)...)
	}
	return lines
}

func describeServices(file protoreflect.FileDescriptor) []string {
	var lines []string
	for i := 0; i < file.Services().Len(); i++ {
		for j := 0; j < file.Services().Get(i).Methods().Len(); j++ {
			m := file.Services().Get(i).Methods().Get(j)
			lines = append(lines, fmt.Sprintf("method %s %s streams=%t > %s streams=%t", m.FullName(), m.Input().FullName(), m.IsStreamingClient(), m.Output().FullName(), m.IsStreamingServer()))
		}
	}
	return lines
}

func typeOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return fmt.Sprintf("map<%s,%s>", typeOf(f.MapKey()), typeOf(f.MapValue()))
	case f.Message() != nil:
		return string(f.Message().FullName())
	case f.Enum() != nil:
		return string(f.Enum().FullName())
	}
	return f.Kind().String()
}

func labelOf(f protoreflect.FieldDescriptor) string {
	switch {
	case f.IsMap():
		return "map"
	case f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic():
		return "oneof:" + string(f.ContainingOneof().Name())
	}
	return f.Cardinality().String()
}

func defaultOf(f protoreflect.FieldDescriptor) string {
	if !f.HasDefault() {
		return ""
	}
	switch {
	case f.Enum() != nil:
		return " default=" + string(f.DefaultEnumValue().Name())
	case f.Kind() == protoreflect.StringKind:
		return fmt.Sprintf(" default=%q", f.Default().String())
	case f.Kind() == protoreflect.DoubleKind:
		return fmt.Sprintf(" default=%.1f", f.Default().Float())
	}
	return " default=" + f.Default().String()
}

func readLines(t *testing.T, name string) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}
