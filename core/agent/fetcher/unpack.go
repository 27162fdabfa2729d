package fetcher

import (
	"archive/tar"
	"archive/zip"
	"compress/bzip2"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/ulikunitz/xz"
)

const (
	// maxEntries is how many files an archive may have.
	maxEntries = 1 << 20
	// An archive that is small and unpacks to more than this, a thousand times
	// its size, is a bomb and nothing else.
	bombBytes, bombRatio = 64 << 20, 1000
)

// kind is how an archive is packed, known by the ending of its name.
type kind struct {
	ending string
	open   func(io.Reader) (io.Reader, error)
	tar    bool
}

func gzipped(r io.Reader) (io.Reader, error)   { return gzip.NewReader(r) }
func bzip2ed(r io.Reader) (io.Reader, error)   { return bzip2.NewReader(r), nil }
func xzed(r io.Reader) (io.Reader, error)      { return xz.NewReader(r) }
func unchanged(r io.Reader) (io.Reader, error) { return r, nil }

// archiveKind is nil for what is no archive. As in Mesos a lone .gz is
// unpacked too.
func archiveKind(name string) *kind {
	for _, k := range []kind{
		{".tar", unchanged, true},
		{".tar.gz", gzipped, true}, {".tgz", gzipped, true},
		{".tar.bz2", bzip2ed, true}, {".tbz2", bzip2ed, true},
		{".tar.xz", xzed, true}, {".txz", xzed, true},
		{".zip", nil, false},
		{".gz", gzipped, false}, {".bz2", bzip2ed, false}, {".xz", xzed, false},
	} {
		if strings.HasSuffix(name, k.ending) && len(path.Base(name)) > len(k.ending) {
			return &k
		}
	}
	return nil
}

// unpacker puts the entries of one archive into the sandbox, next to where the
// archive itself would be.
type unpacker struct {
	*worker
	dir     string
	packed  int64 // bytes of the archive
	bytes   int64 // unpacked
	entries int
}

func (w *worker) unpack(k *kind, root *os.Root, name string) error {
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	u := &unpacker{worker: w, dir: path.Dir(w.Output), packed: info.Size()}
	if err := u.run(k, file); err != nil {
		return fmt.Errorf("archive %q cannot be unpacked: %w", path.Base(w.Output), err)
	}
	return nil
}

func (u *unpacker) run(k *kind, file *os.File) error {
	if k.open == nil {
		archive, err := zip.NewReader(file, u.packed)
		if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // we look at each name ourselves
			return err
		}
		return u.unzip(archive)
	}
	plain, err := k.open(file)
	if err != nil {
		return err
	}
	if k.tar {
		return u.untar(tar.NewReader(plain))
	}
	return u.write(strings.TrimSuffix(u.Output, k.ending), 0o644, plain, u.count)
}

// count bounds what comes out of the archive.
func (u *unpacker) count(n int64) error {
	u.bytes += n
	if u.bytes > u.MaxBytes {
		return fmt.Errorf("it unpacks to more than %d bytes", u.MaxBytes)
	}
	if u.bytes > bombBytes && u.bytes/bombRatio > u.packed {
		return fmt.Errorf("it unpacks to more than %d times its size: this is no archive but a bomb", bombRatio)
	}
	u.progress("unpacking", u.bytes, 0)
	return nil
}

// entry is the place of an archive's entry in the sandbox; empty for the
// directory itself.
func (u *unpacker) entry(name string) (string, error) {
	if u.entries++; u.entries > maxEntries {
		return "", fmt.Errorf("it has more than %d entries", maxEntries)
	}
	if strings.ContainsRune(name, 0) || path.IsAbs(name) || escapes(name) {
		return "", fmt.Errorf("its entry %q lies outside the sandbox", name)
	}
	if name = path.Clean(name); name == "." {
		return "", nil
	}
	return path.Join(u.dir, name), nil
}

// escapes says whether a relative path leads out of where it starts.
func escapes(name string) bool {
	name = path.Clean(name)
	return name == ".." || strings.HasPrefix(name, "../")
}

func (u *unpacker) untar(archive *tar.Reader) error {
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // we look at each name ourselves
			return err
		}
		name, err := u.entry(header.Name)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		mode := header.FileInfo().Mode().Perm()
		switch header.Typeflag {
		case tar.TypeDir:
			err = u.mkdir(name, mode)
		case tar.TypeReg:
			err = u.file(name, mode, header.ModTime, archive)
		case tar.TypeSymlink:
			err = u.symlink(name, header.Linkname)
		case tar.TypeLink:
			err = u.hardlink(name, header.Linkname)
		case tar.TypeXGlobalHeader:
		default:
			err = errors.New("it is a device, a pipe or something else that no archive should bring")
		}
		if err != nil {
			return fmt.Errorf("entry %q: %w", header.Name, err)
		}
	}
}

func (u *unpacker) unzip(archive *zip.Reader) error {
	for _, f := range archive.File {
		name, err := u.entry(strings.ReplaceAll(f.Name, `\`, "/"))
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		if err := u.unzipFile(f, name); err != nil {
			return fmt.Errorf("entry %q: %w", f.Name, err)
		}
	}
	return nil
}

func (u *unpacker) unzipFile(f *zip.File, name string) error {
	mode := f.Mode()
	if mode.IsDir() {
		return u.mkdir(name, mode.Perm())
	}
	if !mode.IsRegular() && mode.Type() != fs.ModeSymlink {
		return errors.New("it is a device, a pipe or something else that no archive should bring")
	}
	from, err := f.Open()
	if err != nil {
		return err
	}
	defer from.Close()
	if mode.IsRegular() {
		return u.file(name, mode.Perm(), f.Modified, from)
	}
	target, err := io.ReadAll(io.LimitReader(from, 4096))
	if err != nil {
		return err
	}
	return u.symlink(name, string(target))
}

// Directories stay open to their owner, or nothing could be put into them.
func (u *unpacker) mkdir(name string, mode fs.FileMode) error {
	if err := u.sandbox.MkdirAll(name, 0o755); err != nil {
		return err
	}
	return u.sandbox.Chmod(name, mode|0o700)
}

func (u *unpacker) file(name string, mode fs.FileMode, modified time.Time, from io.Reader) error {
	if err := u.parent(name); err != nil {
		return err
	}
	if err := u.write(name, mode, from, u.count); err != nil {
		return err
	}
	if modified.IsZero() {
		return nil
	}
	return u.sandbox.Chtimes(name, modified, modified)
}

func (u *unpacker) parent(name string) error {
	if dir := path.Dir(name); dir != "." {
		return u.sandbox.MkdirAll(dir, 0o755)
	}
	return nil
}

// vacate makes the directory that a link comes into, and removes what has its name.
func (u *unpacker) vacate(name string) error {
	if err := u.parent(name); err != nil {
		return err
	}
	if err := u.sandbox.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// symlink refuses what points out of the sandbox. That would do the agent no
// harm, which follows no link out of there either; but it is never meant well.
func (u *unpacker) symlink(name, target string) error {
	if path.IsAbs(target) || escapes(path.Join(path.Dir(name), target)) {
		return fmt.Errorf("it is a link to %q, outside the sandbox", target)
	}
	if err := u.vacate(name); err != nil {
		return err
	}
	return u.sandbox.Symlink(target, name)
}

func (u *unpacker) hardlink(name, target string) error {
	if path.IsAbs(target) || escapes(target) {
		return fmt.Errorf("it is a link to %q, outside the sandbox", target)
	}
	if err := u.vacate(name); err != nil {
		return err
	}
	return u.sandbox.Link(path.Join(u.dir, target), name)
}
