package recordio_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/mezzo-os/mezzo/sdk/recordio"
)

func all(r *recordio.Reader) (records []string, err error) {
	for {
		record, err := r.Next()
		if err != nil {
			return records, err
		}
		records = append(records, string(record))
	}
}

func TestReader(t *testing.T) {
	for text, want := range map[string]struct {
		records []string
		err     string
	}{
		"": {nil, "EOF"},
		"20\n{\"type\":\"HEARTBEAT\"}20\n{\"type\":\"HEARTBEAT\"}": {[]string{`{"type":"HEARTBEAT"}`, `{"type":"HEARTBEAT"}`}, "EOF"},
		"0\n0\n1\na":                {[]string{"", "", "a"}, "EOF"},
		"3\n\n\n\n2\né":             {[]string{"\n\n\n", "é"}, "EOF"},
		"003\nabc":                  {[]string{"abc"}, "EOF"},
		"1":                         {nil, "unexpected EOF"},
		"1\n":                       {nil, "unexpected EOF"},
		"1\na5\nabcd":               {[]string{"a"}, "unexpected EOF"},
		"1\nab\n":                   {[]string{"a"}, "Failed to decode length 'b'"},
		"\n":                        {nil, "Failed to decode length ''"},
		"-1\n":                      {nil, "Failed to decode length '-'"},
		"1 \na":                     {nil, "Failed to decode length '1 '"},
		"1\r\na":                    {nil, "Failed to decode length '1\r'"},
		"000000000000000000001\na":  {nil, "Failed to decode length '000000000000000000001'"},
		"18446744073709551616\n":    {nil, "Failed to decode length '18446744073709551616'"},
		"10\n0123456789":            {[]string{"0123456789"}, "EOF"},
		"11\n01234567890":           {nil, "a record of 11 bytes is more than the 10 that are allowed"},
		"18446744073709551615\nabc": {nil, "a record of 18446744073709551615 bytes is more than the 10 that are allowed"},
	} {
		limit := 10
		if strings.HasPrefix(text, "20") {
			limit = recordio.DefaultLimit
		}
		for name, stream := range map[string]io.Reader{
			"whole": strings.NewReader(text), "byte by byte": iotest.OneByteReader(strings.NewReader(text)),
			"error with data": iotest.DataErrReader(strings.NewReader(text)),
		} {
			reader := recordio.NewReader(stream, limit)
			got, err := all(reader)
			if diff := cmp.Diff(want.records, got); diff != "" || err.Error() != want.err {
				t.Errorf("%q, %s: %s, %v, want %s", text, name, diff, err, want.err)
			}
			// The stream is poisoned: what follows is not read as if it were a record.
			if _, again := reader.Next(); !errors.Is(again, err) {
				t.Errorf("%q, %s: then %v", text, name, again)
			}
		}
	}
}

func TestStreamError(t *testing.T) {
	broken := errors.New("broken")
	reader := recordio.NewReader(io.MultiReader(strings.NewReader("1\na5\nab"), iotest.ErrReader(broken)), 10)
	if got, err := all(reader); len(got) != 1 || !errors.Is(err, broken) {
		t.Errorf("%q, %v", got, err)
	}
}

// A record is there as soon as its last byte is.
func TestNoWaitingForMore(t *testing.T) {
	in, out := io.Pipe()
	defer in.Close()
	go func() { _, _ = out.Write([]byte("2\nab")) }()
	if got, err := recordio.NewReader(in, 10).Next(); err != nil || string(got) != "ab" {
		t.Errorf("%q, %v", got, err)
	}
}

// Who promises much and sends little takes little memory.
func TestMemory(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := recordio.NewReader(strings.NewReader("1000000000\nabc"), 1<<30).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Error(err)
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 16<<20 {
		t.Errorf("%d bytes for a record of 3 that was to have a thousand million", got)
	}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOf(rapid.StringN(0, 300_000, 300_000)).Draw(t, "records")
		var stream bytes.Buffer
		writer := recordio.NewWriter(&stream, nil)
		for _, record := range records {
			if err := writer.Write([]byte(record)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := all(recordio.NewReader(&stream, 300_000))
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if len(got) != len(records) {
			t.Fatalf("%d records, want %d", len(got), len(records))
		}
		for i := range got {
			if got[i] != records[i] {
				t.Fatalf("record %d differs", i)
			}
		}
	})
}

// Over HTTP each record is a chunk, whatever its size.
func TestChunks(t *testing.T) {
	sizes := []int{0, 1, 20, 2047, 2048, 2049, 5000, 100_000}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writer := recordio.NewWriter(w, http.NewResponseController(w).Flush)
		for _, size := range sizes {
			if err := writer.Write(bytes.Repeat([]byte{'x'}, size)); err != nil {
				t.Error(err)
			}
		}
	}))
	defer server.Close()
	raw := rawGet(t, server.Listener.Addr().String())
	_, body, _ := bytes.Cut(raw, []byte("\r\n\r\n"))
	var want bytes.Buffer
	for _, size := range sizes {
		record := recordio.Append(nil, bytes.Repeat([]byte{'x'}, size))
		fmt.Fprintf(&want, "%x\r\n%s\r\n", len(record), record)
	}
	want.WriteString("0\r\n\r\n")
	if !bytes.Equal(body, want.Bytes()) {
		t.Errorf("%d bytes in other chunks than one a record, which are %d", len(body), want.Len())
	}
}

// rawGet returns all that a server sends, chunk sizes too.
func rawGet(t *testing.T, address string) []byte {
	t.Helper()
	connection, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(connection)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestWriteErrors(t *testing.T) {
	broken := errors.New("broken")
	if err := recordio.NewWriter(failing{broken}, nil).Write(nil); !errors.Is(err, broken) {
		t.Error(err)
	}
	if err := recordio.NewWriter(io.Discard, func() error { return broken }).Write(nil); !errors.Is(err, broken) {
		t.Error(err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// Whatever comes, the reader ends with an error, returns no more than the limit
// allows, and what it has returned is what was there.
func FuzzReader(f *testing.F) {
	for _, seed := range []string{"", "0\n", "20\n{\"type\":\"HEARTBEAT\"}20\n{\"type\":\"HEARTBEAT\"}", "1\nab", "99999999999999999999\n", "-1\n"} {
		f.Add([]byte(seed), 100)
	}
	f.Fuzz(func(t *testing.T, text []byte, limit int) {
		reader := recordio.NewReader(iotest.HalfReader(bytes.NewReader(text)), limit)
		rest := text
		for {
			record, err := reader.Next()
			if err != nil {
				if errors.Is(err, io.EOF) && len(rest) > 0 {
					t.Errorf("a clean end before %q", rest)
				}
				return
			}
			if len(record) > limit {
				t.Fatalf("a record of %d bytes", len(record))
			}
			_, after, found := bytes.Cut(rest, []byte("\n"))
			if !found || !bytes.HasPrefix(after, record) {
				t.Fatalf("the record %q is not in %q", record, rest)
			}
			rest = after[len(record):]
		}
	})
}
