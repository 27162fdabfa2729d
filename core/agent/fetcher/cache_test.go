package fetcher_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

func cached(value string) *mezzov1.CommandInfo_URI {
	u := uri(value)
	u.Cache = proto.Bool(true)
	return u
}

// TestCacheOnce: however many want an item, it is downloaded once, unpacked for
// each.
func TestCacheOnce(t *testing.T) {
	r := newRig(t, nil)
	archive := r.serve("/a.tgz", gz(t, tarOf(t, entry{name: "in", content: "side"})))
	var done sync.WaitGroup
	for range 8 {
		sandbox := t.TempDir()
		done.Go(func() {
			if err := r.fetchInto(context.Background(), sandbox, cached(archive)); err != nil {
				t.Error(err)
			}
			if content, err := os.ReadFile(filepath.Join(sandbox, "in")); err != nil || string(content) != "side" {
				t.Errorf("%q, %v", content, err)
			}
		})
	}
	done.Wait()
	if n := r.asked("/a.tgz"); n != 1 {
		t.Errorf("eight tasks made %d downloads", n)
	}
	if used, total := r.fetcher.CacheUse(); used == 0 || used > 1000 || total != 1<<20 {
		t.Errorf("the cache says it holds %d of %d bytes", used, total)
	}
}

func TestCacheEviction(t *testing.T) {
	r := newRig(t, func(o *fetcher.Options) { o.CacheBytes = 100 << 10 })
	block := bytes.Repeat([]byte("x"), 40<<10)
	a, b, c := r.serve("/a", block), r.serve("/b", block), r.serve("/c", block)
	for _, value := range []string{a, b, a, c, a, b} { // c makes room by what was used longest ago: b
		if err := r.fetch(cached(value)); err != nil {
			t.Fatal(err)
		}
		if used, total := r.fetcher.CacheUse(); used > total {
			t.Errorf("the cache holds %d of %d bytes", used, total)
		}
	}
	if got := [3]int{r.asked("/a"), r.asked("/b"), r.asked("/c")}; got != [3]int{1, 2, 1} {
		t.Errorf("downloads of a, b and c: %v", got)
	}
	// What does not fit is fetched all the same.
	large := r.serve("/large", bytes.Repeat([]byte("y"), 200<<10))
	if err := r.fetch(cached(large)); err != nil {
		t.Fatal(err)
	}
	if len(r.read("large")) != 200<<10 {
		t.Error("the large file is not whole")
	}
	if used, _ := r.fetcher.CacheUse(); used != 80<<10 {
		t.Errorf("the cache holds %d bytes, want what it held before", used)
	}
}

// TestCacheCancelled: when the task that downloads an item is killed, another
// that waits for it goes on.
func TestCacheCancelled(t *testing.T) {
	var requests atomic.Int32
	began, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if requests.Add(1) == 1 {
			close(began)
			select {
			case <-release:
			case <-q.Context().Done():
			}
			return
		}
		_, _ = w.Write([]byte("second"))
	}))
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })
	r := newRig(t, nil)
	first, second := t.TempDir(), t.TempDir()
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := r.fetchInto(ctx, first, cached(server.URL+"/x")); !errors.Is(err, context.Canceled) {
			t.Errorf("the cancelled one: %v", err)
		}
	})
	<-began
	done.Go(func() {
		if err := r.fetchInto(context.Background(), second, cached(server.URL+"/x")); err != nil {
			t.Error(err)
		}
	})
	cancel()
	done.Wait()
	if content, err := os.ReadFile(filepath.Join(second, "x")); err != nil || string(content) != "second" {
		t.Errorf("%q, %v", content, err)
	}
}

// TestCacheFailure: a failed download leaves nothing, and is tried again by the
// next who asks.
func TestCacheFailure(t *testing.T) {
	r := newRig(t, nil)
	if err := r.fetch(cached(r.server.URL + "/later")); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the answer is %v", err)
	}
	if used, _ := r.fetcher.CacheUse(); used != 0 {
		t.Errorf("the cache holds %d bytes", used)
	}
	r.serve("/later", []byte("now"))
	if err := r.fetch(cached(r.server.URL + "/later")); err != nil || r.read("later") != "now" {
		t.Errorf("%v", err)
	}
}
