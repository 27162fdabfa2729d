package scheduler_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/scheduler"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
)

// open subscribes over a connection that nobody reads further than its header.
func (w *world) open(body string) (net.Conn, error) {
	conn, err := net.Dial("tcp", strings.TrimPrefix(w.base, "http://"))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(conn, "POST /api/v1/scheduler HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	in := bufio.NewReaderSize(conn, 512)
	status, err := in.ReadString('\n')
	if err == nil && !strings.HasPrefix(status, "HTTP/1.1 200 ") {
		err = fmt.Errorf("answered %q", status)
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// TestIdleSubscribers: five thousand that only listen take little memory, and do
// not keep others waiting.
func TestIdleSubscribers(t *testing.T) {
	const subscribers = 5000
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]net.Conn, subscribers)
	var all sync.WaitGroup
	failed := make(chan error, subscribers)
	next := make(chan int)
	for range 32 {
		all.Go(func() {
			for i := range next {
				var err error
				if conns[i], err = w.open(subscribeX); err != nil {
					failed <- err
				}
			}
		})
	}
	for i := range conns {
		next <- i
	}
	close(next)
	all.Wait()
	t.Cleanup(func() {
		for _, conn := range conns {
			if conn != nil {
				conn.Close()
			}
		}
	})
	select {
	case err := <-failed:
		t.Fatal(err)
	default:
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// This counts both ends and the core, all in this process.
	if each := (int64(after.Sys) - int64(before.Sys)) / subscribers; each > 200<<10 {
		t.Errorf("a subscriber takes %d KiB", each>>10)
	}
	w.want("others", `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`, header{"Mesos-Stream-Id": s.id}, 202, "")
	s.event()
	s.event()
}

// TestLargeBody: a hundred megabytes are refused, and calls go on meanwhile.
func TestLargeBody(t *testing.T) {
	w := newWorld(t, nil)
	s := w.subscribe([]byte(subscribeX), nil)
	for name, length := range map[string]int64{"told": 100 << 20, "untold": -1} {
		body := io.LimitReader(zeros{}, 100<<20)
		r, err := http.NewRequest(http.MethodPost, w.base+"/api/v1/scheduler", body)
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("Content-Type", transport.JSON)
		response, err := w.client.Do(r)
		if err != nil {
			continue // it was cut off while it still sent, which is as well
		}
		response.Body.Close()
		if response.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("%s: %d", name, response.StatusCode)
		}
	}
	w.want("others", `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`, header{"Mesos-Stream-Id": s.id}, 202, "")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestUnreadStream: a scheduler that does not read its events is disconnected,
// which the core learns, and others go on.
func TestUnreadStream(t *testing.T) {
	w := newWorld(t, func(_ *scheduler.Options, o *transport.Options) { o.Limits.Write = 200 * time.Millisecond })
	other := w.subscribe([]byte(subscribeX), nil)
	conn, err := w.open(subscribeX)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 90 { // which the core holds, and sockets do not
		w.core.send("m-0002", messageOf(200<<10))
	}
	w.core.waitGone(t, "m-0002")
	w.want("others", `{"type":"REVIVE","framework_id":{"value":"m-0001"}}`, header{"Mesos-Stream-Id": other.id}, 202, "")
}
