package netlab_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/internal/netlab"
)

// TestMain is also what a node runs: it answers each line with the same.
func TestMain(m *testing.M) {
	if address := os.Getenv("NETLAB_ECHO"); address != "" {
		echo(address)
		return
	}
	os.Exit(m.Run())
}

func echo(address string) {
	conn, err := net.ListenPacket("udp", address)
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("ready\n")
	for buffer := make([]byte, 64); ; {
		n, from, err := conn.ReadFrom(buffer)
		if err != nil {
			panic(err)
		}
		os.Stdout.Write(buffer[:n])
		_, _ = conn.WriteTo(buffer[:n], from)
	}
}

// A node is reached, or cut off, or hears and is not heard, or is heard and does
// not hear; one peer of it may be cut alone.
func TestCuts(t *testing.T) {
	if !netlab.Alone(t) {
		return
	}
	lab := netlab.New(t)
	node, other := lab.Node("10.99.1.1"), lab.Node("10.99.1.2")
	ask := map[*netlab.Node]func(string) string{}
	heard := map[*netlab.Node]*os.File{}
	for _, n := range []*netlab.Node{node, other} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "NETLAB_ECHO="+n.Address+":7")
		out, in, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout = in
		n.Place(cmd)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		in.Close()
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait(); out.Close() })
		if got := read(t, out); got != "ready\n" {
			t.Fatalf("the node says %q", got)
		}
		heard[n] = out
		ask[n] = func(word string) string {
			conn, err := net.Dial("udp", n.Address+":7")
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = conn.Write([]byte(word))
			_ = conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
			buffer := make([]byte, 64)
			size, err := conn.Read(buffer)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			return string(buffer[:size])
		}
	}
	reached := func(n *netlab.Node, word string) {
		t.Helper()
		for range 50 { // a packet may be late on a busy machine, or lost
			if ask[n](word) == word {
				return
			}
		}
		t.Errorf("%s was not reached for %q", n.Address, word)
	}
	reached(node, "a")
	reached(other, "b")
	for _, way := range netlab.Ways {
		node.Cut(way)
		if got := ask[node](way.String()); got != "" {
			t.Errorf("%s: the node answered %q", way, got)
		}
		reached(other, "while the other is "+way.String())
		node.Mend()
		reached(node, "after "+way.String())
	}
	node.Cut(netlab.Both, "10.99.1.2")
	reached(node, "one peer is cut")
	// What was said while nobody heard the node did come in, and nothing else of it.
	said := ""
	for !strings.Contains(said, "one peer is cut") {
		said += read(t, heard[node])
	}
	if !strings.Contains(said, netlab.Out.String()+"after") || strings.Contains(said, netlab.In.String()+"after") || strings.Contains(said, netlab.Both.String()+"after") {
		t.Errorf("the node has heard %q", said)
	}
}

func read(t *testing.T, from *os.File) string {
	t.Helper()
	buffer := make([]byte, 1024)
	n, err := from.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	return string(buffer[:n])
}
