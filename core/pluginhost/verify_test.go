package pluginhost

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

func TestMissingBinary(t *testing.T) {
	r := newRig(t)
	r.install("mezzo-allocator-drf")
	r.install("mezzo-isolator-cgroups")
	r.write(filepath.Join(r.dataDir, "bin", "README"), nil, 0o644)
	spec := r.spec("good", "{}")
	spec.Name, spec.Path = "drx", filepath.Join(r.dataDir, "bin", "mezzo-allocator-drx")
	spec.Place = "master.hcl:3,1-16"
	e := r.startError(spec)
	if e.Step != StepFind {
		t.Errorf("step %q", e.Step)
	}
	var missing *NotFoundError
	if !errors.As(e, &missing) {
		t.Fatalf("no *NotFoundError in %v", e)
	}
	want := []string{"mezzo-allocator-drf", "mezzo-allocator-test", "mezzo-isolator-cgroups"}
	if diff := cmp.Diff(want, missing.Near); diff != "" {
		t.Errorf("near names (-want +got):\n%s", diff)
	}
	wantText(t, e.Error(), `allocator "drx": its binary does not exist`, "declared at: master.hcl:3,1-16", "file: "+spec.Path,
		"what to do: install mezzo-allocator-drx there", "mezzo-allocator-drf, mezzo-allocator-test, mezzo-isolator-cgroups")
}

func TestMissingBinaryInAnEmptyDirectory(t *testing.T) {
	r := newRig(t)
	spec := r.spec("good", "{}")
	spec.Path = filepath.Join(r.dataDir, "nowhere", "mezzo-allocator-test")
	wantText(t, r.startError(spec).Error(), "its binary does not exist", "set plugin_dir or path")
}

// TestUnsafeFiles has what is refused before anything is run: each file would
// leave a mark if it were.
func TestUnsafeFiles(t *testing.T) {
	other := elf.EM_AARCH64
	if machines[other] == machineHere() {
		other = elf.EM_X86_64
	}
	for _, c := range []struct {
		name string
		data string
		mode os.FileMode
		dir  os.FileMode
		want []string
	}{
		{"not executable", "#!/bin/sh\n", 0o644, 0o755, []string{"its binary is not executable for this user (mode 0644)", "what to do: chmod +x "}},
		{"world-writable", "#!/bin/sh\n", 0o757, 0o755, []string{"its binary can be written by others than its owner (mode 0757)", "what to do: chmod go-w "}},
		{"group-writable", "#!/bin/sh\n", 0o775, 0o755, []string{"its binary can be written by others than its owner (mode 0775)", "what to do: chmod go-w "}},
		{"world-writable directory", "#!/bin/sh\n", 0o755, 0o777, []string{"the directory of its binary can be written by others than its owner (mode 0777)", "what to do: chmod go-w "}},
		{"no program", "hello, world", 0o755, 0o755, []string{`its binary is not a program for linux (it begins "hello, world")`, "what to do: install a build"}},
		{"empty", "", 0o755, 0o755, []string{`its binary is not a program for linux (it begins "")`}},
		{"another machine", elfHeader(other), 0o755, 0o755, []string{"its binary is built for " + machines[other] + ", and this machine is " + machineHere(), "what to do: install a build"}},
		{"half an ELF file", elf.ELFMAG + "\x02", 0o755, 0o755, []string{"its binary is damaged", "what to do: install it again"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			dir := filepath.Join(r.dataDir, "unsafe")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "mezzo-allocator-test")
			ran := filepath.Join(r.dataDir, "ran")
			data := c.data
			if strings.HasPrefix(data, "#!") {
				data += "touch " + ran + "\n"
			}
			r.write(path, []byte(data), c.mode)
			if err := os.Chmod(dir, c.dir); err != nil {
				t.Fatal(err)
			}
			spec := r.spec("good", "{}")
			spec.Path = path
			e := r.startError(spec)
			if e.Step != StepVerify {
				t.Errorf("step %q", e.Step)
			}
			wantText(t, e.Error(), append([]string{`allocator "test": `}, c.want...)...)
			if _, err := os.Stat(ran); err == nil {
				t.Error("it was run")
			}
		})
	}
}

// elfHeader is the least of an ELF file that names its machine.
func machineHere() string { return runtime.GOARCH }

func elfHeader(machine elf.Machine) string {
	var b bytes.Buffer
	h := elf.Header64{Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: 1, Ehsize: 64, Shentsize: 64}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	binary.Write(&b, binary.LittleEndian, h)
	return b.String()
}

func TestDirectoryInPlaceOfBinary(t *testing.T) {
	r := newRig(t)
	spec := r.spec("good", "{}")
	spec.Path = filepath.Join(r.dataDir, "bin")
	wantText(t, r.startError(spec).Error(), "its binary is a directory", "set plugin_dir instead of path")
}

func TestScriptWithoutInterpreter(t *testing.T) {
	r := newRig(t)
	spec := r.spec("good", "{}")
	spec.Path = filepath.Join(r.dataDir, "bin", "mezzo-allocator-script")
	r.write(spec.Path, []byte("#!/no/such/interpreter\n"), 0o755)
	e := r.startError(spec)
	if e.Step != StepLaunch {
		t.Errorf("step %q", e.Step)
	}
	wantText(t, e.Error(), "it cannot be started: no such file or directory", "what to do:")
}

func TestChecksum(t *testing.T) {
	r := newRig(t)
	good, err := Checksum(r.bin)
	if err != nil {
		t.Fatal(err)
	}
	spec := r.spec("good", "{}")
	spec.Checksum = good
	i := r.start(spec)
	if s := i.Status(); !s.Pinned || s.Checksum != good {
		t.Errorf("status: pinned %v, checksum %s", s.Pinned, s.Checksum)
	}
	i.Stop(r.context())

	bad := "sha256:" + strings.Repeat("0", 64)
	spec.Checksum = bad
	e := r.startError(spec)
	wantText(t, e.Error(), "its binary is not the one that is pinned", "expected: "+bad, "found:    "+good, "file: "+r.bin, "mezzo plugin lock FILE")
	var sum *ChecksumError
	if !errors.As(e, &sum) {
		t.Fatalf("no *ChecksumError in %v", e)
	}
	if diff := cmp.Diff(&ChecksumError{Path: r.bin, Expected: bad, Found: good}, sum); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestCompanions(t *testing.T) {
	r := newRig(t)
	own, err := Checksum(r.bin)
	if err != nil {
		t.Fatal(err)
	}
	spec := r.spec("companion:mezzo-shim", "{}")
	wantText(t, r.startError(spec).Error(), "its companion mezzo-shim cannot be read: no such file", "what to do: install it beside")

	shim := filepath.Join(filepath.Dir(r.bin), "mezzo-shim")
	r.write(shim, []byte("#!/bin/sh\n"), 0o755)
	digest, err := Checksum(shim)
	if err != nil {
		t.Fatal(err)
	}
	r.start(spec).Stop(r.context()) // not pinned

	spec.Checksum = own
	wantText(t, r.startError(spec).Error(), "its checksum does not cover mezzo-shim, which it runs", "mezzo plugin lock FILE")

	spec.Checksum = own + ",mezzo-shim=" + digest
	r.start(spec).Stop(r.context())

	r.write(shim, []byte("#!/bin/sh\necho gotcha\n"), 0o755)
	e := r.startError(spec)
	if e.Step != StepVerify {
		t.Errorf("step %q", e.Step)
	}
	wantText(t, e.Error(), "its companion mezzo-shim is not the one that is pinned", "expected: "+digest, "file: "+shim)

	r.write(shim, []byte("#!/bin/sh\n"), 0o777)
	wantText(t, r.startError(spec).Error(), "its companion mezzo-shim can be written by others")
}

func TestParseChecksum(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	for _, text := range []string{a, a + ",mezzo-shim=" + b, a + ",a=" + a + ",b=" + b} {
		pin, err := ParseChecksum(text)
		if err != nil || pin.String() != text {
			t.Errorf("%q: %q, %v", text, pin, err)
		}
	}
	for _, text := range []string{
		"", "sha256:", strings.Repeat("a", 64), strings.ToUpper(a), a + ",", a + ",x", a + ",x=" + a[:70],
		a + ",../x=" + b, a + ",x=" + a + ",x=" + b, a + " ", "md5:" + strings.Repeat("a", 64),
	} {
		if pin, err := ParseChecksum(text); err == nil {
			t.Errorf("%q is taken as %v", text, pin)
		}
	}
}

func TestInspect(t *testing.T) {
	r := newRig(t)
	d, checksum, err := Inspect(r.context(), r.bin) // its name alone says what it is to be
	if err != nil {
		t.Fatal(err)
	}
	own, err := Checksum(r.bin)
	if err != nil {
		t.Fatal(err)
	}
	if d.GetName() != "test" || d.GetKind() != plugin.Allocator || len(d.GetSchema().GetAttributes()) != 5 || checksum != own {
		t.Errorf("description %v, checksum %s", d, checksum)
	}
	_, _, err = Inspect(context.Background(), filepath.Join(filepath.Dir(r.bin), "mezzo-allocator-tset"))
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("inspect of nothing: %v", err)
	}
	wantText(t, e.Error(), "mezzo-allocator-tset: its binary does not exist", "plugins in that directory: mezzo-allocator-test")
}

func TestLongTemporaryDirectory(t *testing.T) {
	r := newRig(t)
	long := filepath.Join(r.dataDir, strings.Repeat("long/", 20))
	if err := os.MkdirAll(long, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", long)
	if _, _, err := Inspect(r.context(), r.bin); err != nil {
		t.Error(err)
	}
	if err := Check(r.context(), r.spec("good", "{}"), Options{}); err != nil {
		t.Error(err)
	}
}

func TestCheckHasNoEffect(t *testing.T) {
	r := newRig(t)
	t.Setenv("TMPDIR", r.dataDir)
	spec := r.spec("good", `{"exit": true}`) // would die in a real Configure
	if err := Check(r.context(), spec, Options{}); err != nil {
		t.Errorf("check of a good configuration: %v", err)
	}
	spec.Configure = constant(`{"greeting": ""}`)
	err := Check(r.context(), spec, Options{})
	if err == nil {
		t.Fatal("check of a bad configuration: no error")
	}
	wantText(t, err.Error(), "it rejected its configuration", "empty greeting")
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "mezzo-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
