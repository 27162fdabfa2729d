package legacy_test

import (
	"bytes"
	"net/http"
	"net/url"
	"testing"
)

// recorder is an answer that is kept.
type recorder struct {
	header http.Header
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
func (r *recorder) WriteHeader(int)             {}

func mustURL(t testing.TB) *url.URL {
	u, err := url.Parse("http://h/")
	if err != nil {
		t.Fatal(err)
	}
	return u
}
