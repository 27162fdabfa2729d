package test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// rss is the memory that a process holds, in MiB.
func rss(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib >> 10
}

// TestMesosIdleSubscribers: thousands of schedulers that subscribe, want nothing
// and read nothing cost a bounded amount of memory, and no other scheduler its
// offers and updates.
func TestMesosIdleSubscribers(t *testing.T) {
	t.Parallel()
	const subscribers = 5000
	c := startDev(t)
	var pid float64
	eventually(t, "the adapter", func() bool { pid, _ = c.mesosPlugin(true)["pid"].(float64); return pid > 0 })
	before := rss(t, int(pid))
	body := `{"type":"SUBSCRIBE","subscribe":{"framework_info":{"user":"root","name":"idle","failover_timeout":0},"suppressed_roles":["*"]}}`
	open := func() (net.Conn, error) {
		conn, err := net.Dial("tcp", c.fields["mesos"])
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(conn, "POST /api/v1/scheduler HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		status, err := bufio.NewReaderSize(conn, 64).ReadString('\n')
		if err == nil && !strings.HasPrefix(status, "HTTP/1.1 200 ") {
			err = fmt.Errorf("answered %q", status)
		}
		return conn, err
	}
	conns, errs, next := make([]net.Conn, subscribers), make([]error, subscribers), make(chan int)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			for i := range next {
				conns[i], errs[i] = open()
			}
		})
	}
	for i := range conns {
		next <- i
	}
	close(next)
	all.Wait()
	defer func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	}()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("subscriber %d: %v", i, err)
		}
	}
	if after := rss(t, int(pid)); after-before > 600 {
		t.Errorf("the adapter holds %d MiB, %d before they came", after, before)
	} else {
		t.Logf("the adapter holds %d MiB, %d before they came", after, before)
	}
	s := newHTTPScheduler(t, c.fields["mesos"], 0)
	if err := s.subscribe(); err != nil {
		t.Fatal(err)
	}
	s.until(mezzov1.TaskState_TASK_FINISHED, "true")
	s.teardown()
}
