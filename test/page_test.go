package test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/internal/doctest"
)

// exception is one line or several of a page that its test does not run.
type exception struct{ page, command, reason string }

// notRun is every command of the documentation that no page's test runs. One that
// is not there any more is an error.
var notRun = []exception{
	{"README.md", "make demo    # builds Mezzo, starts a small cluster, and shows dominant resource fairness at work", "TestDemoWithoutRoot runs it"},
	{"README.md", "make test    # all tests", "this is a part of it"},
	{"framework-authors.md", "go run ./sdk/examples/scheduler-hello --masters 127.0.0.1:5061 --tasks 3", "TestSchedulerHello runs it"},
	{"framework-authors.md", "go run ./sdk/examples/executor-hello --masters 127.0.0.1:5061 --tasks 3", "TestExecutorRunsOnWhenTheAgentIsKilled runs it"},
	{"framework-authors.md", `curl -sN -i -H 'Content-Type: application/json' -d '{
  "type": "SUBSCRIBE",
  "subscribe": {"framework_info": {
    "user": "root", "name": "by-hand", "roles": ["*"],
    "capabilities": [{"type": "MULTI_ROLE"}]
  }}
}' http://127.0.0.1:5050/api/v1/scheduler`, "TestGuideMesosByHand sends it"},
	{"framework-authors.md", "MEZZO=$(command -v mezzo) go test ./sdk/examples/scheduler-hello", "TestGuideTesting runs it"},
	{"images.md", "mezzo run --image nginx --publish 31080:80", "the test's registry has busybox alone; TestRunImages publishes a port"},
	{"images.md", "mezzo run --image registry.example/team/job:1.4 --pull always --volume /srv/in:/in:ro", "the test's registry has busybox alone; TestRunImages does the same"},
	{"images.md", "mezzo run --image file:///srv/images/job.tar -- ./job", "TestRunImages does the same"},
	{"operations.md", "pgrep -af 'mezzo (agent|master) '                 # which ones, and their directories (--data-dir)", "the page's machine has none; TestKilledDev does what this paragraph says"},
	{"operations.md", "kill AGENT…                                       # SIGTERM; the tasks end with their grace, the plugins follow", "as above"},
	{"operations.md", "kill MASTER", "as above"},
	{"operations.md", "mezzo agent --data-dir DIR/agent1 --master 127.0.0.1:5061 --rpc 127.0.0.1:0 --http 127.0.0.1:0 --end-tasks", "as above"},
	{"operations.md", "apt install ./dist/mezzo_0.1.0_amd64.deb", "TestDebianPackage looks into the package; to install it would change the machine"},
	{"operations.md", "systemctl enable --now mezzo-master mezzo-agent   # on one machine; on many, each its own", "the machine of a test has no systemd; TestDebianPackage verifies the units"},
	{"operations.md", "systemctl reload mezzo-master                     # as mezzo reload", "as above"},
	{"packages.md", `docker build -f packaging/Dockerfile -t mezzo --build-arg VERSION=0.1.0 .
docker run -d --name master --network host -v mezzo-master:/var/lib/mezzo mezzo`, "the machine of a test has no Docker daemon"},
	{"packages.md", `docker run -d --name agent --user 0 --privileged --network host --pid host --cgroupns host \
  -v /sys/fs/cgroup:/sys/fs/cgroup -v /run/containerd:/run/containerd \
  -v /var/lib/mezzo-agent:/var/lib/mezzo-agent:rshared \
  mezzo agent --config /etc/mezzo/agent.hcl`, "as above"},
	{"plugin-authors.md", "mezzo plugin new fair-cpus --kind allocator", "TestPluginNew follows the page for each kind"},
	{"plugin-authors.md", "cd mezzo-allocator-fair-cpus", "as above"},
	{"plugin-authors.md", "mezzo run -- echo served", "as above"},
	{"plugin-authors.md", "mezzo plugins", "as above"},
	{"plugin-authors.md", "curl -d 'echo hello' http://127.0.0.1:7070/tasks", "as above"},
	{"plugin-authors.md", "curl http://127.0.0.1:7070/tasks", "as above"},
	{"simulator.md", "make sim                                                    # 300 seeds", "it takes minutes; the tests of core/sim run a few"},
	{"simulator.md", "make sim SEEDS=1000", "as above"},
	{"simulator.md", "make sim-scale                                              # 50,000 agents, 1,000 frameworks", "as above; TestScale runs a smaller one"},
	{"simulator.md", "go test -count=1 ./core/sim                                 # what CI runs: seeds, determinism, shrinking, planted bugs", "CI runs it"},
	{"simulator.md", "go test -count=1 -timeout 24h -run TestSeeds -v ./core/sim -args -seeds=100000 -first=1 -every-fault -audit=8", "it takes hours"},
	{"simulator.md", "go test -count=1 -run TestSeeds ./core/sim -args -seed=123  # one seed, with its whole trace", "CI runs other seeds"},
	{"telemetry.md", `ssh -L 6060:127.0.0.1:6060 MASTER
go tool pprof http://127.0.0.1:6060/debug/pprof/profile     # thirty seconds of processor time
go tool pprof http://127.0.0.1:6060/debug/pprof/heap        # memory`, "it needs another machine, and somebody who looks at the profile"},
}

// TestDocumentation runs every command of the README and of docs/, page by page, and
// compares what it prints with what the page says; see package doctest for how a
// page says it.
func TestDocumentation(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	before := pageGroups(t)
	t.Cleanup(func() { removeGroups(t, before) })
	left := slices.Clone(notRun)
	for _, path := range append(pages, "../README.md") {
		page := readPage(t, path)
		var blocks []doctest.Block
		commands := 0
		for _, b := range page.Blocks {
			b.Text, left = runnable(page.Name, b.Text, left)
			if b.Text != "" {
				commands++
			}
			if b.Text != "" || !b.Shown && b.Terminal != "" {
				blocks = append(blocks, b)
			}
		}
		page.Blocks = blocks
		switch {
		case commands == 0:
		case len(page.Needs) == 0:
			t.Errorf("%s has commands and does not say what they need: write <!-- commands: WORDS --> below its title, with %s", page.Name, strings.Join(needsKnown(), ", "))
		default:
			t.Run(strings.TrimSuffix(page.Name, ".md"), func(t *testing.T) {
				t.Parallel()
				runPage(t, page)
			})
		}
	}
	for _, x := range notRun {
		for _, name := range regexp.MustCompile(`Test[A-Z]\w+`).FindAllString(x.reason, -1) {
			if !strings.Contains(tests(t), "\nfunc "+name+"(") {
				t.Errorf("%s: %s is left to %s, which there is not", x.page, x.command, name)
			}
		}
	}
	for _, x := range left {
		t.Errorf("%s has no command any more that is written so: %s", x.page, x.command)
	}
}

// pageGroups are the cgroups of containers of agents with the default settings,
// which are those of pages.
func pageGroups(t *testing.T) []string {
	t.Helper()
	var groups []string
	for _, pattern := range []string{"/sys/fs/cgroup/mezzo*/*/", "/sys/fs/cgroup/*/mezzo*/*/"} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, found...)
	}
	return groups
}

// removeGroups removes the cgroups that came with the pages and stayed: their
// machines are switched off while tasks run. What has a process stays, and so does
// what is as young as a container that another run of the tests just makes.
func removeGroups(t *testing.T, before []string) {
	for _, path := range pageGroups(t) {
		info, err := os.Stat(path)
		if err == nil && time.Since(info.ModTime()) > 30*time.Second && !slices.Contains(before, path) {
			_ = os.Remove(path)
		}
	}
}

func readPage(t *testing.T, path string) doctest.Page {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page, err := doctest.Parse(filepath.Base(path), string(text))
	if err != nil {
		t.Fatal(err)
	}
	return page
}

// tests is the source of this package's tests, and of the core's.
func tests(t *testing.T) string {
	t.Helper()
	var files []string
	for _, pattern := range []string{"*_test.go", "../core/*/*_test.go"} {
		found, err := filepath.Glob(pattern)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		files = append(files, found...)
	}
	var all strings.Builder
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

// runnable takes the commands of a block that are not run out of it and off the
// list; and its comments.
func runnable(page, text string, list []exception) (string, []exception) {
	text = "\n" + text
	for i := 0; i < len(list); {
		if command := "\n" + list[i].command + "\n"; list[i].page == page && strings.Contains(text, command) {
			text = strings.Replace(text, command, "\n", 1)
			list = slices.Delete(list, i, i+1)
			continue
		}
		i++
	}
	var run strings.Builder
	for line := range strings.Lines(text) {
		if trimmed := strings.TrimSpace(line); trimmed != "" && !strings.HasPrefix(trimmed, "#") {
			run.WriteString(line)
		}
	}
	return run.String(), list
}

// installed is a machine with a configuration in /etc/mezzo.d, by which a master
// runs.
const installed = `mkdir /etc/mezzo.d
echo 'data_dir = "/var/lib/mezzo"' >/etc/mezzo.d/mezzo.hcl
mezzo master --config /etc/mezzo.d >ready 2>&1 &
for i in $(seq 600); do grep -q ^ready ready && break; sleep 0.1; done
`

// pageNeeds is what a page may ask for in its comment, as a piece of shell that its
// machine is set up with.
var pageNeeds = map[string]string{
	"nothing":    "",
	"dev":        "", // mezzo dev runs
	"images":     "", // mezzo dev runs, with images
	"installed":  installed,
	"stopped":    installed + "kill $!\nwait\n",
	"internet":   "", // hosts that the page speaks of answer; see internet_test.go
	"containerd": "containerd >/dev/null 2>&1 &\nfor i in $(seq 200); do ctr version >/dev/null 2>&1 && break; sleep 0.1; done\n",
}

func needsKnown() (words []string) {
	for word := range pageNeeds {
		words = append(words, word)
	}
	slices.Sort(words)
	return words
}

// runPage runs a page on a machine of its own, which has Mezzo.
func runPage(t *testing.T, page doctest.Page) {
	runPageOn(t, page, doctest.Options{Dir: tempDir(t), Env: pageEnv(t)})
}

func runPageOn(t *testing.T, page doctest.Page, o doctest.Options) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	for _, word := range page.Needs {
		setup, known := pageNeeds[word]
		if !known {
			t.Fatalf("%s needs %q; what it may need is %s", page.Name, word, strings.Join(needsKnown(), ", "))
		}
		o.Setup += setup
	}
	var net *internet
	if slices.Contains(page.Needs, "internet") {
		net = newInternet(t)
		o.Setup = net.setup() + o.Setup
	}
	s, err := doctest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.End(); err != nil {
			t.Error(err)
		}
	}()
	if net != nil {
		pid, err := s.Pid()
		if err != nil {
			t.Fatal(err)
		}
		net.serve(t, pid)
	}
	if slices.Contains(page.Needs, "dev") {
		page.Blocks = slices.Insert(page.Blocks, 0, doctest.Block{Text: "mezzo dev", Terminal: "dev", Shown: true, Output: "…\nready …\n"})
	}
	if slices.Contains(page.Needs, "images") {
		page.Blocks = slices.Insert(page.Blocks, 0, doctest.Block{
			Text: "printf 'isolator \"cgroups\" {}\\nisolator \"containerd\" {}\\n' >images.hcl\nmezzo dev --config images.hcl", Terminal: "dev", Shown: true, Output: "…\nready …\n",
		})
	}
	for _, block := range page.Blocks {
		began := time.Now()
		if output, err := s.Do(context.Background(), block); err != nil {
			t.Fatalf("%s:%d: %v\nthe page's commands:\n%s\nwhat they are to print:\n%s\nwhat they printed:\n%s", page.Name, block.Line, err, block.Text, block.Output, output)
		}
		if took := time.Since(began); took > time.Second {
			t.Logf("%s:%d took %.1f s", page.Name, block.Line, took.Seconds())
		}
	}
}

// pageEnv is a plain user's environment, with what Go needs to find what it has
// built and fetched already.
func pageEnv(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT", "GOCACHE", "GOMODCACHE", "GOPATH", "GOPROXY", "GOFLAGS", "GOTOOLCHAIN").Output()
	if err != nil {
		t.Fatal(err)
	}
	values := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	source, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return []string{
		"PATH=" + bin + ":" + filepath.Join(values[0], "bin") + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"GOCACHE=" + values[1], "GOMODCACHE=" + values[2], "GOPATH=" + values[3], "GOPROXY=" + values[4], "GOFLAGS=" + values[5], "GOTOOLCHAIN=" + values[6],
		"LANG=C.UTF-8",
		// What the pages clone is this source.
		"GIT_CONFIG_COUNT=2",
		"GIT_CONFIG_KEY_0=url." + source + ".insteadOf", "GIT_CONFIG_VALUE_0=https://github.com/mezzo-os/mezzo",
		"GIT_CONFIG_KEY_1=safe.directory", "GIT_CONFIG_VALUE_1=*",
	}
}
