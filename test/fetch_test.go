package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestRunFetches: what the URIs of a task name is in its sandbox when it starts,
// unpacked, and from the cache the second time.
func TestRunFetches(t *testing.T) {
	t.Parallel()
	var packed bytes.Buffer
	compress := gzip.NewWriter(&packed)
	archive := tar.NewWriter(compress)
	script := "#!/bin/sh\necho fetched; cat ./words.txt\n"
	for _, err := range []error{
		archive.WriteHeader(&tar.Header{Name: "app/start", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(script))}),
		func() error { _, err := archive.Write([]byte(script)); return err }(), archive.Close(), compress.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var downloads atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		switch q.URL.Path {
		case "/app.tar.gz":
			downloads.Add(1)
			_, _ = w.Write(packed.Bytes())
		case "/words":
			_, _ = w.Write([]byte("two words\n"))
		default:
			http.NotFound(w, q)
		}
	}))
	t.Cleanup(server.Close)
	c := startDev(t)
	for range 2 {
		r := c.mezzo("run", "--uri", server.URL+"/app.tar.gz,cache", "--uri", server.URL+"/words,output=words.txt", "--", "./app/start")
		if r.code != 0 || r.stdout != "fetched\ntwo words\n" {
			t.Errorf("%+v", r)
		}
	}
	if n := downloads.Load(); n != 1 {
		t.Errorf("two tasks made %d downloads of one cached archive", n)
	}
	r := c.mezzo("run", "--uri", server.URL+"/gone", "--", "true")
	if r.code != 125 || !strings.Contains(r.stderr, "404 Not Found") || !strings.Contains(r.stderr, "fetching gone") {
		t.Errorf("a file that is not there: %+v", r)
	}
	if r := c.mezzo("run", "--uri", "ftp://host/x", "--", "true"); r.code != 2 || !strings.Contains(r.stderr, "ftp") {
		t.Errorf("a scheme that nobody fetches: %+v", r)
	}
}
