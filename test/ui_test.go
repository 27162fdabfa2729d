package test

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
)

// browser is a headless Chromium on one cluster. Whatever goes wrong in a page
// fails the test.
type browser struct {
	t    *testing.T
	ctx  context.Context
	home string

	mu     sync.Mutex
	expect string // part of a complaint that is wanted
}

func newBrowser(t *testing.T, c *cluster) *browser {
	t.Helper()
	dir := profile(t) // for all that it writes
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.UserDataDir(dir), chromedp.Env("TMPDIR="+dir), chromedp.WSURLReadTimeout(patience))
	ctx, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	// What the browser tells beyond what chromedp knows is no complaint of a page.
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 10*time.Minute)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx, home: "http://" + c.fields["http"]}
	chromedp.ListenTarget(ctx, func(event any) {
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.complain(e.ExceptionDetails.Error())
		case *runtime.EventConsoleAPICalled:
			if e.Type == runtime.APITypeError {
				b.complain(fmt.Sprint("the console: ", string(e.Args[0].Value)))
			}
		case *network.EventResponseReceived:
			if e.Response.Status >= 400 {
				b.complain(fmt.Sprintf("%s: %d", e.Response.URL, e.Response.Status))
			}
		}
	})
	b.do(network.Enable())
	return b
}

// profile is a directory for a browser, which may write to it for a moment after
// it was ended.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "mezzo-e2e-browser-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		eventually(t, "the browser's files to be removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	return dir
}

func (b *browser) complain(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.expect == "" || !strings.Contains(text, b.expect) {
		b.t.Errorf("a page: %s", text)
	}
}

// expects says which complaint is none; empty: every one is.
func (b *browser) expects(part string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.expect = part
}

func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatalf("the browser: %v", err)
	}
}

// open goes to a page, and see waits until it has these words.
func (b *browser) open(path string, words ...string) {
	b.t.Helper()
	b.do(chromedp.Navigate(b.home + path))
	b.see(words...)
}

func (b *browser) see(words ...string) {
	b.t.Helper()
	text := ""
	for deadline := time.Now().Add(patience); ; {
		err := chromedp.Run(b.ctx, chromedp.Evaluate(`["main", "header", "dialog"].map((e) => document.querySelector(e)?.innerText || "").join("\n")`, &text))
		if err != nil {
			text = err.Error() // another page takes this one's place just now
		}
		missing := ""
		for _, w := range words {
			if !strings.Contains(strings.ToLower(text), strings.ToLower(w)) {
				missing = w
			}
		}
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			b.t.Fatalf("the page does not show %q but:\n%s", missing, text)
		}
		b.do(chromedp.Sleep(50 * time.Millisecond))
	}
}

// press presses the button of this text, in the dialog if there is one.
func (b *browser) press(text string) {
	b.t.Helper()
	b.click(fmt.Sprintf(`(//dialog//button[normalize-space()=%q] | //main//button[normalize-space()=%q])[last()]`, text, text))
}

// click clicks on an element, and again on the one in its place if it was drawn
// anew just then.
func (b *browser) click(path string) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		err := chromedp.Run(b.ctx, chromedp.Click(path, chromedp.BySearch))
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "Could not find node with given id") || time.Now().After(deadline) {
			b.t.Fatalf("the browser: a click on %s: %v", path, err)
		}
	}
}

// picture keeps the page as it is, for people to look at.
func (b *browser) picture(name string) {
	b.t.Helper()
	var png []byte
	b.do(chromedp.FullScreenshot(&png, 100))
	if err := os.MkdirAll("screenshots", 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("screenshots", name+".png"), png, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// TestPages walks every page of the web UI on a cluster on which tasks run and
// fail.
func TestPages(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("chromium"); err != nil {
		lacking(t, "no chromium: %v", err)
	}
	c := startDev(t, "--agents", "2")
	long := c.start("run", "--name", "web", "--role", "eng/web", "--cpus", "0.5", "--mem", "64", "--", "sh", "-c",
		"echo begin; i=0; while :; do i=$((i+1)); echo line $i of the log; sleep 0.3; done")
	eventually(t, "the task", func() bool { return strings.Contains(long.stdout.String(), "line 1 ") })
	if r := c.mezzo("run", "--name", "sad", "--cpus", "0.5", "--mem", "64", "--", "sh", "-c", "exit 3"); r.code != 3 {
		t.Fatalf("the task that fails: %+v", r)
	}
	var task, framework, agent string
	for _, x := range c.list("tasks") {
		if x["name"] == "web" {
			task, framework, agent = x["id"].(string), x["framework_id"].(string), x["agent_id"].(string)
		}
	}
	b := newBrowser(t, c)
	b.do(chromedp.EmulateViewport(1280, 900))

	b.open("/", "live", "leading", "Tasks running", "allocator/drf", "healthy", "eng/web")
	b.picture("overview")
	b.open("/ui/agents", "active", agent)
	b.picture("agents")
	b.open("/ui/agents/"+agent, "active", "Containers", task, "isolator/cgroups", "cores")
	b.picture("agent")
	b.open("/ui/frameworks", "run web", "run sad", "completed")
	b.picture("frameworks")
	b.open("/ui/frameworks/"+framework, "run web", task, "eng/web")
	b.picture("framework")
	b.press("Why no offer?")
	b.see("Why is run web not offered more?", "Role eng/web", "declined")
	b.press("Ask for every agent")
	b.see("Passes in")
	b.picture("why")
	b.open("/ui/roles", "eng/web", "Dominant share", "6.3%")
	b.picture("roles")
	b.open("/ui/tasks", task, "running", "failed", "exited with status 3")
	b.picture("tasks")
	b.open("/ui/tasks?q=failed+sad", "1 of 2", "failed") // a filter is in the address
	b.open("/ui/offers", "Offers")
	b.picture("offers")
	b.open("/ui/maintenance", "Maintenance", "No agent")
	b.picture("maintenance")
	b.open("/ui/nowhere", "no such page")

	b.open("/ui/tasks/"+framework+"/"+url.PathEscape(task), "running", "What happened", "launched", "cores")
	b.picture("task")
	b.press("Sandbox")
	b.see("stdout", "stderr", "-rw-", "download")
	b.picture("sandbox")
	b.click(`//main//a[normalize-space()="stdout"]`)
	b.see("begin", "line 1 of the log", "follow the end")
	last := strings.TrimSpace(long.stdout.String())
	b.see(last[strings.LastIndexByte(last, '\n')+1:]) // it grows
	b.picture("log")

	b.open("/ui/plugins", "allocator/drf", "sha256:", "offer_timeout", "restarts")
	b.press("Reload the configuration")
	b.see("nothing to change")
	b.picture("plugins")

	// Light and dark, and as narrow as a phone: nothing sticks out.
	b.do(chromedp.EmulateViewport(390, 800), emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}))
	for name, path := range map[string]string{"overview": "/ui/", "tasks": "/ui/tasks", "agent": "/ui/agents/" + agent, "why": "/ui/why/" + framework} {
		b.open(path, "live")
		var wide bool
		var back string
		b.do(chromedp.Sleep(300*time.Millisecond),
			chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth`, &wide),
			chromedp.Evaluate(`getComputedStyle(document.documentElement).backgroundColor`, &back))
		if wide {
			t.Errorf("%s is wider than a phone", path)
		}
		if back != "rgb(18, 22, 29)" {
			t.Errorf("%s is not dark: %s", path, back)
		}
		b.picture("phone-" + name)
	}

	// What is ordered happens, and is seen without a reload.
	other := ""
	for _, a := range c.list("agents") {
		if id := a["id"].(string); id != agent {
			other = id
		}
	}
	b.do(chromedp.EmulateViewport(1280, 900))
	b.open("/ui/agents/"+other, "active")
	b.press("Deactivate")
	b.see("What runs goes on.") // it asks before it does
	b.press("Deactivate")
	b.see("deactivated", "ordered")
	b.open("/ui/maintenance", "Mark gone")
	b.picture("maintenance-deactivated")
	b.press("Activate")
	b.see("It is offered again.")
	b.press("Activate")
	b.see("No agent is drained")
	b.do(chromedp.EmulateViewport(1280, 900))
	b.open("/ui/tasks/"+framework+"/"+url.PathEscape(task), "running")
	b.press("Kill")
	b.see("asked to end, and killed", "running")
	b.press("Kill")
	b.see("It has been asked to end.", "killed", "It has ended.")
	if r := long.wait(); r.code == 0 {
		t.Errorf("a task that was killed in a page ended well: %+v", r)
	}
}

// TestPagesOutlastTheMaster kills the master under an open page: the page says
// so, and goes on when it is back.
func TestPagesOutlastTheMaster(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("chromium"); err != nil {
		lacking(t, "no chromium: %v", err)
	}
	c := startDev(t)
	b := newBrowser(t, c)
	b.open("/ui/agents", "live", "active")
	b.expects("/v1/watch") // which fails meanwhile
	c.killChild("master")
	b.see("not connected")
	b.picture("not-connected")
	c.startAgain("master")
	b.see("live", "active")
}

// TestPagesOfALargeCluster looks at a table of a thousand agents: it has all,
// the document only those in sight; and it is worked by keys alone.
func TestPagesOfALargeCluster(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("chromium"); err != nil {
		lacking(t, "no chromium: %v", err)
	}
	c := startDev(t)
	swarm, err := mastertest.NewSwarm(mastertest.SwarmOptions{Address: c.fields["rpc"], Agents: 1000, Reconnect: true, Backoff: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(swarm.Close)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := swarm.AwaitRegistered(ctx); err != nil {
		t.Fatal(err)
	}
	b := newBrowser(t, c)
	b.do(chromedp.EmulateViewport(1280, 900))
	b.open("/ui/agents", "live", "1,001")
	rows := func() (n int, first string) {
		b.do(chromedp.Evaluate(`document.querySelectorAll(".rows .row").length`, &n), chromedp.Evaluate(`[...document.querySelectorAll(".rows .row a")].map((a) => a.textContent)[0]`, &first))
		return n, first
	}
	n, top := rows()
	if n == 0 || n > 60 {
		t.Errorf("%d of 1,001 rows are in the document, want those in sight and some spare", n)
	}
	b.picture("agents-large")

	// Keys: the table scrolls, "/" goes to the filter, a tab and enter follow a link.
	b.do(chromedp.Focus(".table .scroll"))
	for range 5 {
		b.do(chromedp.KeyEvent(kb.PageDown))
	}
	eventually(t, "other rows", func() bool { _, first := rows(); return first != top })
	id := ""
	for i := range 1000 {
		// No other id begins with it.
		if of := swarm.Agent(i).ID(); strings.HasSuffix(of, "-S500") {
			id = of
		}
	}
	// As a keyboard does: what the page does not let happen types nothing.
	b.do(input.DispatchKeyEvent(input.KeyDown).WithKey("/").WithText("/"), input.DispatchKeyEvent(input.KeyUp).WithKey("/"), chromedp.KeyEvent(id))
	b.see("1 of 1,001", id)
	for on, tabs := "", 0; on != id; tabs++ {
		b.do(chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(`document.activeElement.closest(".row")?.innerText.split("\n").pop() || ""`, &on))
		if tabs > 20 {
			t.Fatalf("twenty tabs from the filter do not lead to the row's link, but to %q", on)
		}
	}
	b.expects("/v1/agent/") // whose state nobody can ask: it is simulated
	b.do(chromedp.KeyEvent(kb.Enter))
	b.see("Containers", "active", id)

	// An agent that leaves is seen to leave, and the others stay where they are.
	b.open("/ui/agents?q=disconnected", "0 of 1,001", "Nothing fits the filter.")
	swarm.Close()
	b.see("1,000 of 1,001", "disconnected")
}
