// Package netlab gives a test a network of its own: nodes with addresses,
// cables that can be cut, one way too. Only root can make one.
//
//	if !netlab.Alone(t) {
//		return // it has run, below this one
//	}
//	lab := netlab.New(t)
//	node := lab.Node("10.99.1.1")
//	node.Place(cmd) // cmd will run there, and reach the test at netlab.Hub
//	node.Cut(netlab.Out)
//
// Terms. The *hub* is the network namespace of the test, with a bridge in it. A
// *node* is a namespace with one cable to the bridge.
//
// The test runs as a process of its own, whose namespace has no other user, and
// the nodes' namespaces have no name: the kernel removes all of it, bridge and
// cables too, with the last process in it, however that ends. So tests may run
// beside each other, and nothing of the machine's network is touched.
package netlab

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// Hub is the test's address. Those of nodes are in the same 10.99.0.0/16.
	Hub = "10.99.0.1"

	prefix = "/16"
	bridge = "hub0"

	// inside names the test that runs in a hub.
	inside = "MEZZO_NETLAB"

	// farewell is what is left of the outer test's time when the inner one's ends,
	// so that the inner one says where it hung.
	farewell = 10 * time.Second
)

// Alone runs the test again, in a process in a network namespace of its own,
// passes on what it says, and returns false. In that process it returns true.
// env is added to the process's environment.
func Alone(t *testing.T, env ...string) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	if os.Geteuid() != 0 {
		t.Skip("only root makes network namespaces")
	}
	args := []string{"-test.run=^" + t.Name() + "$", "-test.v", "-test.count=1"}
	if deadline, bounded := t.Deadline(); bounded {
		args = append(args, "-test.timeout="+max(time.Until(deadline)-farewell, time.Second).String())
	}
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(append(os.Environ(), inside+"="+t.Name()), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	// What it started and left behind must not keep this one waiting.
	cmd.WaitDelay = farewell
	out, in := io.Pipe()
	cmd.Stdout, cmd.Stderr = in, in
	ended := make(chan error, 1)
	go func() {
		// The kernel watches the thread that starts it, so that thread must stay.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Run()
		in.Close()
		ended <- err
	}()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if line != "" {
			t.Log(strings.TrimSuffix(line, "\n"))
		}
		if err != nil {
			break
		}
	}
	if err := <-ended; err != nil {
		t.Errorf("in a network of its own: %v", err)
	}
	return false
}

// Lab is a hub with its nodes.
type Lab struct {
	t     *testing.T
	nodes int
}

// New makes the hub of a test for which Alone was true.
func New(t *testing.T) *Lab {
	t.Helper()
	l := &Lab{t: t}
	must(t, "", "ip", "link", "set", "lo", "up")
	must(t, "", "ip", "link", "add", bridge, "type", "bridge")
	must(t, "", "ip", "address", "add", Hub+prefix, "dev", bridge)
	must(t, "", "ip", "link", "set", bridge, "up")
	return l
}

// Node is a namespace with one address.
type Node struct {
	t       *testing.T
	Address string
	path    string // of the namespace
}

// Node makes one. Its namespace is there until the test has ended and nothing
// runs in it any more.
func (l *Lab) Node(address string) *Node {
	l.t.Helper()
	path, err := namespace(l.t)
	if err != nil {
		l.t.Fatalf("a network namespace: %v", err)
	}
	n := &Node{t: l.t, Address: address, path: path}
	l.nodes++
	cable := fmt.Sprintf("n%d", l.nodes)
	must(l.t, "", "ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", path)
	must(l.t, "", "ip", "link", "set", cable, "master", bridge, "up")
	must(l.t, "link set lo up\naddress add "+address+prefix+" dev eth0\nlink set eth0 up\n", n.there("ip", "-batch", "-")...)
	return n
}

// namespace makes one, held by a thread of this process until the test ends.
func namespace(t *testing.T) (path string, err error) {
	made, end, over := make(chan error, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		runtime.LockOSThread() // and never unlocked: the thread ends with this
		err := unix.Unshare(unix.CLONE_NEWNET)
		path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		made <- err
		<-end
	}()
	t.Cleanup(func() { close(end); <-over })
	err = <-made
	return path, err
}

func (n *Node) there(command ...string) []string {
	return append([]string{"nsenter", "--net=" + n.path, "--"}, command...)
}

// Place has a command that was not started yet run in the node, with the same
// process id.
func (n *Node) Place(cmd *exec.Cmd) {
	cmd.Args = n.there(append([]string{cmd.Path}, cmd.Args[1:]...)...)
	if cmd.Path, cmd.Err = exec.LookPath("nsenter"); cmd.Err != nil {
		n.t.Fatal(cmd.Err)
	}
}

// Way is which packets of a node are lost.
type Way int

const (
	Both Way = iota
	Out      // it is not heard, and hears
	In       // it is heard, and hears nothing
)

// Ways are all.
var Ways = []Way{Both, Out, In}

func (w Way) String() string { return [...]string{"cut off", "not heard", "deaf"}[w] }

// Cut loses what passes between the node and peers, without a word to anybody;
// without peers, between it and everybody. It adds to what was cut before.
func (n *Node) Cut(way Way, peers ...string) {
	n.t.Helper()
	if len(peers) == 0 {
		peers = []string{"0.0.0.0/0"}
	}
	var rules strings.Builder
	rules.WriteString("*filter\n")
	for _, peer := range peers {
		if way != In {
			fmt.Fprintf(&rules, "-A OUTPUT ! -o lo -d %s -j DROP\n", peer)
		}
		if way != Out {
			fmt.Fprintf(&rules, "-A INPUT ! -i lo -s %s -j DROP\n", peer)
		}
	}
	rules.WriteString("COMMIT\n")
	must(n.t, rules.String(), n.there("iptables-restore", "--noflush", "--wait")...)
}

// Mend ends every cut of the node.
func (n *Node) Mend() {
	n.t.Helper()
	must(n.t, "", n.there("iptables", "--wait", "--flush")...)
}

func must(t *testing.T, input string, command ...string) {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(input)
	if text, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			err = fmt.Errorf("%w; install Debian's packages iproute2 and iptables, as .ci/deps does", err)
		}
		t.Fatalf("%s: %v\n%s%s", strings.Join(command, " "), err, input, text)
	}
}
