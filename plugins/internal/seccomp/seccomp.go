// Package seccomp turns profiles of system calls into programs for the kernel.
//
// A profile is Docker's JSON, whose rules may depend on architecture, kernel
// and capabilities, or what it comes to in an OCI runtime specification. The
// program is classic BPF. It is for programs of this machine's architecture;
// others (32 bit on a 64-bit machine) find every system call missing, so that
// no rule is passed by through another numbering.
package seccomp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/elastic/go-seccomp-bpf/arch"
	profiles "github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Default is the name of the profile that is built in: Docker's.
const Default = "default"

// Load reads the profile Default, or that in the file, for a process with the
// capabilities in its bounding set.
func Load(profile string, bounding []string) (*specs.LinuxSeccomp, error) {
	s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: bounding}}}
	if profile == Default {
		return profiles.GetDefaultProfile(s)
	}
	text, err := os.ReadFile(profile)
	if err != nil {
		return nil, err
	}
	rules, err := profiles.LoadProfile(string(text), s)
	if err == nil && rules == nil {
		err = errors.New("it has neither a default action nor rules")
	}
	if err != nil {
		return nil, fmt.Errorf("seccomp profile %s: %w", profile, err)
	}
	return rules, nil
}

// Where the kernel has what a filter may look at (struct seccomp_data).
const (
	callNumber = 0
	auditArch  = 4
	arguments  = 16
)

// Codes of what a filter returns.
const (
	retErrno = uint32(unix.SECCOMP_RET_ERRNO)
	most     = 4096 // instructions, for the kernel
	x32Bit   = 0x40000000
)

// Compile returns the program of a profile. The first rule that matches a call
// counts. What the profile says and the program could not is an error.
func Compile(p *specs.LinuxSeccomp) ([]bpf.RawInstruction, error) {
	if len(p.ListenerPath) > 0 {
		return nil, errors.New("a listener for system calls (listenerPath) is not supported")
	}
	native, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	otherwise, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	var numbers []uint32
	rules := map[uint32][]bpf.Instruction{}
	for i := range p.Syscalls {
		code, err := rule(&p.Syscalls[i])
		if err != nil {
			return nil, err
		}
		for _, name := range p.Syscalls[i].Names {
			number, here := native.SyscallNames[name]
			switch {
			case here:
				n := uint32(number)
				if _, known := rules[n]; !known {
					numbers = append(numbers, n)
				}
				rules[n] = append(rules[n], code...)
			case p.Syscalls[i].Action != specs.ActAllow && !anywhere(name):
				return nil, fmt.Errorf("a rule is against system call %q, which is not known", name)
			}
		}
	}
	if len(numbers) == 0 {
		return nil, errors.New("none of its rules is for a system call of this machine")
	}
	missing := bpf.RetConstant{Val: retErrno | uint32(unix.ENOSYS)}
	program := []bpf.Instruction{
		bpf.LoadAbsolute{Off: auditArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(native.ID), SkipTrue: 1},
		missing,
		bpf.LoadAbsolute{Off: callNumber, Size: 4},
	}
	if native.ID == arch.X86_64.ID { // x32 has the same architecture
		program = append(program, bpf.JumpIf{Cond: bpf.JumpLessThan, Val: x32Bit, SkipTrue: 1}, missing)
	}
	for _, n := range numbers {
		// A call's own rules end with the default, so that what they loaded is
		// never taken for a number.
		block := append(rules[n], bpf.RetConstant{Val: otherwise})
		program = append(program, bpf.JumpIf{Cond: bpf.JumpEqual, Val: n, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(block))})
		program = append(program, block...)
	}
	program = append(program, bpf.RetConstant{Val: otherwise})
	if len(program) > most {
		return nil, fmt.Errorf("it comes to %d instructions, and the kernel takes no more than %d", len(program), most)
	}
	return bpf.Assemble(program)
}

// rule is the code of one entry of a profile: it returns the action when all
// conditions hold, and goes on behind itself otherwise.
func rule(s *specs.LinuxSyscall) ([]bpf.Instruction, error) {
	result, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return nil, err
	}
	code := []bpf.Instruction{bpf.RetConstant{Val: result}}
	seen := map[uint]bool{}
	for _, a := range slices.Backward(s.Args) {
		if seen[a.Index] {
			return nil, fmt.Errorf("%v: a rule compares argument %d twice; write a rule for each", s.Names, a.Index)
		}
		seen[a.Index] = true
		c, err := condition(a, uint8(len(code)))
		if err != nil {
			return nil, fmt.Errorf("%v: %w", s.Names, err)
		}
		code = append(c, code...)
	}
	return code, nil
}

// condition compares a 64-bit argument by halves. Where it does not hold, the
// next n instructions are left out.
func condition(a specs.LinuxSeccompArg, n uint8) ([]bpf.Instruction, error) {
	if a.Index > 5 {
		return nil, fmt.Errorf("a system call has no argument %d", a.Index)
	}
	at := arguments + 8*uint32(a.Index)
	low, high := bpf.LoadAbsolute{Off: at, Size: 4}, bpf.LoadAbsolute{Off: at + 4, Size: 4}
	if binary.NativeEndian.Uint16([]byte{0, 1}) == 1 { // big-endian
		low, high = high, low
	}
	valueLow, valueHigh := uint32(a.Value), uint32(a.Value>>32)
	jump := func(cond bpf.JumpTest, value uint32, ifTrue, ifFalse uint8) bpf.Instruction {
		return bpf.JumpIf{Cond: cond, Val: value, SkipTrue: ifTrue, SkipFalse: ifFalse}
	}
	switch a.Op {
	case specs.OpEqualTo:
		return []bpf.Instruction{high, jump(bpf.JumpEqual, valueHigh, 0, 2+n), low, jump(bpf.JumpEqual, valueLow, 0, n)}, nil
	case specs.OpNotEqual:
		return []bpf.Instruction{high, jump(bpf.JumpEqual, valueHigh, 0, 2), low, jump(bpf.JumpEqual, valueLow, n, 0)}, nil
	case specs.OpGreaterThan, specs.OpGreaterEqual:
		last := bpf.JumpGreaterThan
		if a.Op == specs.OpGreaterEqual {
			last = bpf.JumpGreaterOrEqual
		}
		return []bpf.Instruction{high, jump(bpf.JumpGreaterThan, valueHigh, 3, 0), jump(bpf.JumpEqual, valueHigh, 0, 2+n), low, jump(last, valueLow, 0, n)}, nil
	case specs.OpLessThan, specs.OpLessEqual:
		last := bpf.JumpGreaterOrEqual
		if a.Op == specs.OpLessEqual {
			last = bpf.JumpGreaterThan
		}
		return []bpf.Instruction{high, jump(bpf.JumpGreaterThan, valueHigh, 3+n, 0), jump(bpf.JumpEqual, valueHigh, 0, 2), low, jump(last, valueLow, n, 0)}, nil
	case specs.OpMaskedEqual:
		and := func(mask uint32) bpf.Instruction { return bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: mask} }
		return []bpf.Instruction{
			high, and(valueHigh), jump(bpf.JumpEqual, uint32(a.ValueTwo>>32), 0, 3+n),
			low, and(valueLow), jump(bpf.JumpEqual, uint32(a.ValueTwo), 0, n),
		}, nil
	}
	return nil, fmt.Errorf("comparison %q is not known", a.Op)
}

// anywhere tells whether some architecture has a system call.
func anywhere(name string) bool {
	return slices.ContainsFunc([]string{"amd64", "386", "arm64", "arm", "ppc64le", "s390x"}, func(machine string) bool {
		info, err := arch.GetInfo(machine)
		if err != nil {
			return false
		}
		_, ok := info.SyscallNames[name]
		return ok
	})
}

func action(a specs.LinuxSeccompAction, number *uint) (uint32, error) {
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActErrno:
		n := uint(unix.EPERM)
		if number != nil {
			n = *number
		}
		if n > 4095 {
			return 0, fmt.Errorf("%d is no error number", n)
		}
		return retErrno | uint32(n), nil
	}
	return 0, fmt.Errorf("action %q is not supported; use SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, SCMP_ACT_LOG, SCMP_ACT_TRAP, SCMP_ACT_KILL_THREAD or SCMP_ACT_KILL_PROCESS", a)
}

// Path is the file of a profile by its name, which leads nowhere else.
func Path(dir, name string) (string, error) {
	switch {
	case dir == "":
		return "", fmt.Errorf("%q: no seccomp_dir is set that could have it", name)
	case !filepath.IsLocal(name):
		return "", fmt.Errorf("%q leads out of seccomp_dir; give a name in it", name)
	}
	return filepath.Join(dir, name), nil
}

// Named loads the profile of a name: Default, or a file of dir. The error is for
// the task's owner.
func Named(dir, name string, bounding []string) (*specs.LinuxSeccomp, error) {
	if name != Default {
		path, err := Path(dir, name)
		if err != nil {
			return nil, fmt.Errorf("seccomp profile %w", err)
		}
		name = path
	}
	profile, err := Load(name, bounding)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no seccomp profile %s on this agent", name)
	}
	return profile, err
}
