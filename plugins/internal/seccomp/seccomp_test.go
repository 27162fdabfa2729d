package seccomp_test

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"github.com/mezzo-os/mezzo/plugins/internal/seccomp"
)

// data is what the kernel gives a filter: in the machine's byte order, where
// the interpreter reads the network's, so every word is swapped.
func data(number, machine uint32, args ...uint64) []byte {
	var b []byte
	word := func(v uint32) { b = append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v)) }
	word(number)
	word(machine)
	word(0)
	word(0)
	for i := range 6 {
		var v uint64
		if i < len(args) {
			v = args[i]
		}
		word(uint32(v)) // little-endian machines: the low half first
		word(uint32(v >> 32))
	}
	return b
}

func run(t *testing.T, p *specs.LinuxSeccomp, in []byte) uint32 {
	t.Helper()
	raw, err := seccomp.Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("not every instruction is known")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	got, err := vm.Run(in)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func native(t *testing.T) uint32 {
	t.Helper()
	switch runtime.GOARCH {
	case "amd64":
		return 0xc000003e
	case "arm64":
		return 0xc00000b7
	}
	t.Skip("no architecture that this test knows")
	return 0
}

const foreign = 0x40000003 // i386

func errno(n uint32) uint32 { return 0x00050000 | n }

const allow = 0x7fff0000

func TestDefault(t *testing.T) {
	machine := native(t)
	p, err := seccomp.Load(seccomp.Default, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want uint32
	}{
		{"read", data(unix.SYS_READ, machine), allow},
		{"mount", data(unix.SYS_MOUNT, machine), errno(uint32(unix.EPERM))},
		{"thread", data(unix.SYS_CLONE, machine, unix.CLONE_THREAD), allow},
		{"new user namespace", data(unix.SYS_CLONE, machine, unix.CLONE_NEWUSER), errno(uint32(unix.EPERM))},
		{"clone3", data(unix.SYS_CLONE3, machine), errno(uint32(unix.ENOSYS))},
		{"personality", data(unix.SYS_PERSONALITY, machine, 8), allow},
		{"another personality", data(unix.SYS_PERSONALITY, machine, 0x1234), errno(uint32(unix.EPERM))},
		{"i386", data(unix.SYS_READ, foreign), errno(uint32(unix.ENOSYS))},
	} {
		if got := run(t, p, c.in); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	admin, err := seccomp.Load(seccomp.Default, []string{"CAP_SYS_ADMIN"})
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, admin, data(unix.SYS_MOUNT, machine)); got != allow {
		t.Errorf("mount with CAP_SYS_ADMIN: %#x", got)
	}
}

// TestDenyList: what is not named is allowed, and not through another numbering.
func TestDenyList(t *testing.T) {
	machine := native(t)
	path := filepath.Join(t.TempDir(), "p.json")
	text := `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
		{"names":["ptrace"],"action":"SCMP_ACT_ERRNO","errnoRet":13},
		{"names":["socket"],"action":"SCMP_ACT_KILL_PROCESS","args":[{"index":0,"value":16,"op":"SCMP_CMP_EQ"}]}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := seccomp.Load(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		in   []byte
		want uint32
	}{
		{"read", data(unix.SYS_READ, machine), allow},
		{"ptrace", data(unix.SYS_PTRACE, machine), errno(13)},
		{"netlink", data(unix.SYS_SOCKET, machine, 16), 0x80000000},
		{"inet", data(unix.SYS_SOCKET, machine, 2), allow},
		{"i386's ptrace", data(26, foreign), errno(uint32(unix.ENOSYS))},
	} {
		if got := run(t, p, c.in); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

func TestRefused(t *testing.T) {
	native(t)
	rule := func(r specs.LinuxSyscall) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{r}}
	}
	big := uint(5000)
	for want, p := range map[string]*specs.LinuxSeccomp{
		"SCMP_ACT_NOTIFY":      rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActNotify}),
		`"raed"`:               rule(specs.LinuxSyscall{Names: []string{"raed"}, Action: specs.ActErrno}),
		"no error number":      rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, ErrnoRet: &big}),
		"has no argument 6":    rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}),
		"twice":                rule(specs.LinuxSyscall{Names: []string{"read"}, Action: specs.ActErrno, Args: []specs.LinuxSeccompArg{{Op: specs.OpMaskedEqual}, {Op: specs.OpEqualTo}}}),
		"none of its rules is": {DefaultAction: specs.ActErrno},
	} {
		if _, err := seccomp.Compile(p); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q: %v", want, err)
		}
	}
	if _, err := seccomp.Load(filepath.Join(t.TempDir(), "none"), nil); !os.IsNotExist(err) {
		t.Errorf("a missing profile: %v", err)
	}
}

// TestComparisons runs every comparison against Go's own, at the borders of the
// halves.
func TestComparisons(t *testing.T) {
	machine := native(t)
	values := []uint64{0, 1, 5, 6, 7, 1<<32 - 1, 1 << 32, 1<<32 + 6, 6 << 32, 1<<64 - 1}
	for op, holds := range map[specs.LinuxSeccompOperator]func(arg, value, two uint64) bool{
		specs.OpEqualTo:      func(a, v, _ uint64) bool { return a == v },
		specs.OpNotEqual:     func(a, v, _ uint64) bool { return a != v },
		specs.OpLessThan:     func(a, v, _ uint64) bool { return a < v },
		specs.OpLessEqual:    func(a, v, _ uint64) bool { return a <= v },
		specs.OpGreaterThan:  func(a, v, _ uint64) bool { return a > v },
		specs.OpGreaterEqual: func(a, v, _ uint64) bool { return a >= v },
		specs.OpMaskedEqual:  func(a, v, two uint64) bool { return a&v == two },
	} {
		for _, value := range values {
			two := value & 6
			p := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
				Names: []string{"ioctl"}, Action: specs.ActAllow,
				Args: []specs.LinuxSeccompArg{{Index: 1, Op: op, Value: value, ValueTwo: two}, {Index: 2, Op: specs.OpEqualTo, Value: 1}},
			}}}
			for _, arg := range values {
				want := errno(uint32(unix.EPERM))
				if holds(arg, value, two) {
					want = allow
				}
				if got := run(t, p, data(unix.SYS_IOCTL, machine, 0, arg, 1)); got != want {
					t.Errorf("%#x %s %#x %#x: %#x, want %#x", arg, op, value, two, got, want)
				}
				if got := run(t, p, data(unix.SYS_IOCTL, machine, 0, arg, 2)); got == allow {
					t.Errorf("%#x %s %#x: allowed although the other condition does not hold", arg, op, value)
				}
			}
		}
	}
}
