package pluginhost

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// verify checks a binary before it is run, and returns its sha256. path has no
// links in it.
func (s Spec) verify(path string) (string, *Error) {
	if e := s.verifyFile(path, path); e != nil {
		return "", e
	}
	if s.Checksum == "" {
		digest, err := Checksum(path)
		if err != nil {
			return "", s.verifyError(path, err, fmt.Sprintf("its binary cannot be read: %v", rootCause(err)), "let this user read the file")
		}
		return digest, nil
	}
	pin, err := ParseChecksum(s.Checksum)
	if err != nil {
		return "", s.verifyError(path, err, err.Error(), s.lockRemedy())
	}
	if e := s.verifyDigest(path, path, pin.Plugin); e != nil {
		return "", e
	}
	for name, digest := range pin.Companions {
		companion := filepath.Join(filepath.Dir(path), name)
		if e := s.verifyFile(path, companion); e != nil {
			return "", e
		}
		if e := s.verifyDigest(path, companion, digest); e != nil {
			return "", e
		}
	}
	return pin.Plugin, nil
}

// verifyCompanions checks, once the plugin has said which programs it runs, that
// each is there, safe, and pinned if the plugin is.
func (s Spec) verifyCompanions(path string, d *pluginv1.Description) *Error {
	pin, _ := ParseChecksum(s.Checksum) // verify has read it; empty when unpinned
	for _, name := range companions(d) {
		if !companionForm.MatchString(name) {
			return s.verifyError(path, nil, fmt.Sprintf("its companion %q is not the name of a file beside it", name), "report this to the plugin's author")
		}
		if e := s.verifyFile(path, filepath.Join(filepath.Dir(path), name)); e != nil {
			return e
		}
		if _, pinned := pin.Companions[name]; s.Checksum != "" && !pinned {
			return s.verifyError(path, nil, fmt.Sprintf("its checksum does not cover %s, which it runs", name), s.lockRemedy())
		}
	}
	return nil
}

func (s Spec) verifyError(path string, cause error, problem, remedy string) *Error {
	return &Error{Plugin: s.title(), Path: path, Step: StepVerify, Problem: problem, Remedy: remedy, Err: cause}
}

func (s Spec) lockRemedy() string {
	return "if the file is the one you want, pin it anew: mezzo plugin lock FILE"
}

func (s Spec) verifyDigest(path, file, expected string) *Error {
	found, err := Checksum(file)
	if err != nil {
		return s.verifyError(file, err, fmt.Sprintf("%s cannot be read: %v", file, rootCause(err)), "let this user read the file")
	}
	if found == expected {
		return nil
	}
	what := "its binary"
	if file != path {
		what = "its companion " + filepath.Base(file)
	}
	return s.verifyError(file, &ChecksumError{Path: file, Expected: expected, Found: found},
		fmt.Sprintf("%s is not the one that is pinned\n  expected: %s\n  found:    %s", what, expected, found), s.lockRemedy())
}

// verifyFile checks one program: the plugin at path itself, or a companion.
func (s Spec) verifyFile(path, file string) *Error {
	fail := func(problem, remedy string) *Error { return s.verifyError(file, nil, problem, remedy) }
	what := "its binary"
	if file != path {
		what = "its companion " + filepath.Base(file)
	}
	info, err := os.Lstat(file)
	if err != nil {
		return s.verifyError(file, err, fmt.Sprintf("%s cannot be read: %v", what, rootCause(err)), "install it beside the plugin's binary")
	}
	switch {
	case info.IsDir():
		return fail(what+" is a directory", "write the path of the binary, or set plugin_dir instead of path")
	case !info.Mode().IsRegular():
		return fail(what+" is not a regular file", "install the program itself")
	case info.Mode().Perm()&0o022 != 0:
		return fail(fmt.Sprintf("%s can be written by others than its owner (mode %04o)", what, info.Mode().Perm()), "chmod go-w "+file)
	}
	dir := filepath.Dir(file)
	switch d, err := os.Stat(dir); {
	case err != nil:
		return s.verifyError(dir, err, fmt.Sprintf("its directory cannot be read: %v", rootCause(err)), "let this user read the directory")
	// In a sticky directory, such as /tmp, others cannot replace the file.
	case d.Mode().Perm()&0o022 != 0 && d.Mode()&os.ModeSticky == 0:
		return fail(fmt.Sprintf("the directory of %s can be written by others than its owner (mode %04o)", what, d.Mode().Perm()), "chmod go-w "+dir)
	}
	if err := unix.Access(file, unix.X_OK); err != nil {
		return fail(fmt.Sprintf("%s is not executable for this user (mode %04o)", what, info.Mode().Perm()), "chmod +x "+file)
	}
	return s.verifyProgram(what, file)
}

// machines are Go's names for what ELF calls a machine.
var machines = map[elf.Machine]string{
	elf.EM_X86_64: "amd64", elf.EM_AARCH64: "arm64", elf.EM_386: "386", elf.EM_ARM: "arm",
	elf.EM_RISCV: "riscv64", elf.EM_PPC64: "ppc64", elf.EM_S390: "s390x", elf.EM_LOONGARCH: "loong64",
}

// verifyProgram finds out what the kernel would only call "exec format error":
// a program for another machine, or no program at all. Scripts are programs.
func (s Spec) verifyProgram(what, file string) *Error {
	f, err := os.Open(file)
	if err != nil {
		// Executable and not readable is legal; then the kernel decides.
		return nil
	}
	defer f.Close()
	head := make([]byte, 64)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	if bytes.HasPrefix(head, []byte("#!")) {
		return nil
	}
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return s.verifyError(file, nil, fmt.Sprintf("%s is not a program for %s (it begins %q)", what, runtime.GOOS, head[:min(n, 16)]),
			"install a build of the plugin for "+runtime.GOOS+"/"+runtime.GOARCH)
	}
	program, err := elf.NewFile(f)
	if err != nil {
		return s.verifyError(file, err, fmt.Sprintf("%s is damaged: %v", what, err), "install it again")
	}
	machine, known := machines[program.Machine]
	if !known {
		machine = program.Machine.String()
	}
	compatible := []string{runtime.GOARCH}
	if runtime.GOARCH == "amd64" {
		compatible = append(compatible, "386")
	}
	if !slices.Contains(compatible, machine) {
		return s.verifyError(file, nil, fmt.Sprintf("%s is built for %s, and this machine is %s", what, machine, runtime.GOARCH),
			"install a build of the plugin for "+runtime.GOOS+"/"+runtime.GOARCH)
	}
	return nil
}
