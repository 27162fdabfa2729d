package test

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/internal/doctest"
)

var newcomerTree = flag.String("newcomer", "", "a directory with a Debian tree, in which TestNewcomer follows README and tutorial")

// TestNewcomer is somebody who has a clean machine, Go and nothing else of ours:
// a Debian tree that test/newcomer has made. He clones the source, and does what
// the README and the tutorial say, to the letter. Nothing of this machine is
// seen there but Go, and the modules that it has fetched, in the place of a proxy.
func TestNewcomer(t *testing.T) {
	if *newcomerTree == "" {
		t.Log("make newcomer runs this, in a tree that it makes; TestDocumentation runs the same pages on this machine")
		return
	}
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	values := strings.Split(strings.TrimSpace(string(out)), "\n")
	source := filepath.Join(*newcomerTree, "srv", "mezzo.git")
	if err := os.RemoveAll(source); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("git", "clone", "-q", "--bare", "..", source).CombinedOutput(); err != nil {
		t.Fatalf("git clone: %v\n%s", err, out)
	}
	for _, path := range []string{"../README.md", "../docs/tutorial.md"} {
		page := readPage(t, path)
		// He waits for everything but the tests: those are for who changes something.
		tests := slices.DeleteFunc(slices.Clone(notRun), func(x exception) bool { return !strings.HasPrefix(x.command, "make test") })
		for i := range page.Blocks {
			page.Blocks[i].Text, tests = runnable(page.Name, page.Blocks[i].Text, tests)
		}
		t.Run(strings.TrimSuffix(page.Name, ".md"), func(t *testing.T) {
			dir, err := os.MkdirTemp(filepath.Join(*newcomerTree, "home"), "newcomer-")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := os.RemoveAll(dir); err != nil {
					t.Error(err)
				}
			})
			runPageOn(t, page, doctest.Options{
				Patience: 20 * time.Minute, // he compiles all of it, on a machine that has never done so
				Root:     *newcomerTree, Dir: strings.TrimPrefix(dir, *newcomerTree),
				Binds: []string{values[0] + ":/opt/go", filepath.Join(values[1], "cache", "download") + ":/opt/proxy"},
				Env: []string{
					"PATH=/opt/go/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
					"GOPROXY=file:///opt/proxy", "GONOSUMDB=*", "GOTOOLCHAIN=local", "GOCACHE=/home/cache/build", "GOMODCACHE=/home/cache/mod",
					"GIT_CONFIG_COUNT=2",
					"GIT_CONFIG_KEY_0=url./srv/mezzo.git.insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/mezzo-os/mezzo",
					"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
				},
			})
		})
	}
}
