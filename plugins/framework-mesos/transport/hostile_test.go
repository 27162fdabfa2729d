package transport_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
)

// quick are limits that a test can wait for.
var quick = transport.Limits{
	Header: 100 * time.Millisecond, Request: 100 * time.Millisecond, Idle: 100 * time.Millisecond, Write: 100 * time.Millisecond,
	Body: 1 << 20, Bodies: 2 << 20,
}

func sink(s *transport.Server) {
	s.Handle("", "/sink", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
		failure := transport.ReadBody(w, r, func(body []byte) *transport.Error {
			transport.Text(w, 200, fmt.Sprint(len(body)))
			return nil
		})
		if failure != nil {
			failure.Write(w)
		}
	}})
}

// closes waits until the server closes the connection, and returns what it said.
func closes(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	said, err := io.ReadAll(conn)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatal("the server keeps the connection open")
	}
	return string(said)
}

func dial(t *testing.T, s *transport.Server) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// TestSlowloris: clients that send slowly, or nothing, are cut off.
func TestSlowloris(t *testing.T) {
	s := serve(t, transport.Options{Limits: quick}, sink)
	for name, sends := range map[string]string{
		"nothing":                   "",
		"half a head":               "POST /sink HTTP/1.1\r\nHost: x\r\nX-",
		"half a body":               "POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
		"half a chunk of a body":    "POST /sink HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nabc",
		"a body that nobody reads":  "POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc",
		"one request, then nothing": "GET /sink HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := dial(t, s)
			fmt.Fprint(conn, sends)
			closes(t, conn)
		})
	}
}

// TestBodies: bodies are bounded, each and together.
func TestBodies(t *testing.T) {
	s := serve(t, transport.Options{Limits: transport.Limits{Body: 1 << 20, Bodies: 3 << 20}}, sink)
	post := func(body io.Reader) (int, string) {
		t.Helper()
		response, err := http.Post("http://"+s.Address()+"/sink", "text/plain", body)
		if err != nil {
			return 0, err.Error()
		}
		defer response.Body.Close()
		text, _ := io.ReadAll(response.Body)
		return response.StatusCode, string(text)
	}
	defer http.DefaultClient.CloseIdleConnections()
	for _, size := range []int{0, 1, 4 << 10, 4<<10 + 1, 1 << 20} {
		if code, text := post(bytes.NewReader(make([]byte, size))); code != 200 || text != fmt.Sprint(size) {
			t.Errorf("%d bytes: %d %s", size, code, text)
		}
	}
	// One byte too many, told and untold.
	if code, text := post(bytes.NewReader(make([]byte, 1<<20+1))); code != 413 {
		t.Errorf("too large: %d %s", code, text)
	}
	if code, text := post(io.MultiReader(bytes.NewReader(make([]byte, 1<<20+1)))); code != 413 {
		t.Errorf("too large, in chunks: %d %s", code, text)
	}
	// A hundred megabytes are not even read.
	conn := dial(t, s)
	fmt.Fprintf(conn, "POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 100<<20)
	if said := closes(t, conn); !strings.HasPrefix(said, "HTTP/1.1 413 ") {
		t.Errorf("100 MB: %q", said)
	}
	// Many that are let in one by one are not let in all together.
	var open []net.Conn
	var held sync.WaitGroup
	refused := make(chan struct{}, 8)
	for range 8 {
		conn := dial(t, s)
		open = append(open, conn)
		fmt.Fprintf(conn, "POST /sink HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", 1<<20)
		_, _ = conn.Write(make([]byte, 1<<20-1))
		held.Go(func() {
			if response, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
				response.Body.Close()
				if response.StatusCode == 503 {
					refused <- struct{}{}
				}
			}
		})
	}
	late := time.After(patience)
	for busy := range 4 {
		select {
		case <-refused:
		case <-late:
			t.Fatalf("%d of 8 bodies were refused, though only about 3 have room", busy)
		}
	}
	for _, conn := range open {
		conn.Close()
	}
	held.Wait()
	for deadline := time.Now().Add(patience); ; {
		code, _ := post(bytes.NewReader(make([]byte, 1<<20)))
		if code == 200 {
			break // the room is given back
		}
		if time.Now().After(deadline) {
			t.Fatalf("afterwards: %d", code)
		}
	}
}

// TestUnreadStream: a stream that nobody reads is cut off, and others are served
// meanwhile.
func TestUnreadStream(t *testing.T) {
	ended := make(chan struct{})
	record := bytes.Repeat([]byte("x"), 64<<10)
	counts, set := counted()
	s := serve(t, transport.Options{Limits: quick, Counts: counts}, func(s *transport.Server) {
		s.Handle("", "/stream", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			out, err := transport.OpenRecords(w, transport.JSON)
			for err == nil {
				err = out.Write(record)
			}
		}})
		s.HandleBasics(transport.About{})
	})
	fmt.Fprint(dial(t, s), "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the stream goes on")
	}
	awaitCount(t, set, 1, "streams_cut_total", "/stream", transport.CutStalled)
	if got := send(t, s, "GET /health"); got.status != 200 {
		t.Errorf("others: %d", got.status)
	}
}

// TestCut: a stream can be ended while its writer waits for the reader.
func TestCut(t *testing.T) {
	opened, ended := make(chan *transport.RecordWriter, 1), make(chan struct{})
	s := serve(t, transport.Options{}, func(s *transport.Server) {
		s.Handle("", "/stream", transport.Endpoint{Serve: func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			out, err := transport.OpenRecords(w, transport.JSON)
			opened <- out
			for err == nil {
				err = out.Write(make([]byte, 1<<20))
			}
		}})
	})
	conn := dial(t, s)
	fmt.Fprint(conn, "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
	(<-opened).Cut()
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("the stream goes on")
	}
}

// TestConnections: those beyond the bound are closed, those within are served.
func TestConnections(t *testing.T) {
	counts, set := counted()
	s := serve(t, transport.Options{Limits: transport.Limits{Connections: 3}, Counts: counts}, func(s *transport.Server) { s.HandleBasics(transport.About{}) })
	ask := func(conn net.Conn) error {
		fmt.Fprint(conn, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			response.Body.Close()
		}
		return err
	}
	var open []net.Conn
	for range 3 {
		conn := dial(t, s)
		if err := ask(conn); err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	if err := ask(dial(t, s)); err == nil {
		t.Error("a connection too many was served")
	}
	awaitCount(t, set, 1, "connections_refused_total")
	awaitCount(t, set, 3, "connections")
	for _, conn := range open {
		if err := ask(conn); err != nil {
			t.Errorf("one within the bound: %v", err)
		}
	}
	open[0].Close()
	for deadline := time.Now().Add(patience); ask(dial(t, s)) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("there is no room after one has gone")
		}
	}
}
