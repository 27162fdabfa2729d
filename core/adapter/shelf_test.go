package adapter

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// disk keeps what shelves write.
type disk struct {
	records map[string]Record
	fail    error
}

func (d *disk) write(_ context.Context, r Record) error {
	if d.fail != nil {
		return d.fail
	}
	if key := r.Adapter + "\x00" + r.Key; len(r.Data) == 0 {
		delete(d.records, key)
	} else {
		d.records[key] = r
	}
	return nil
}

func (d *disk) open(t *testing.T) *Shelf {
	t.Helper()
	var records []Record
	for _, r := range d.records {
		records = append(records, r)
	}
	s, err := NewShelf(records, d.write)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func store(s *Shelf, adapter string) frameworkv1.StoreServer {
	return StoreServer(adapter, func() (*Shelf, error) { return s, nil })
}

func put(t *testing.T, s frameworkv1.StoreServer, key, value string, version uint64) uint64 {
	t.Helper()
	answer, err := s.Put(t.Context(), &frameworkv1.PutRequest{Key: key, Value: []byte(value), Version: version})
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return answer.GetVersion()
}

func TestShelfKeepsValuesOfEachAdapter(t *testing.T) {
	d := &disk{records: map[string]Record{}}
	shelf := d.open(t)
	a, b := store(shelf, "a"), store(shelf, "b")
	first := put(t, a, "jobs/1", "x", 0)
	second := put(t, a, "jobs/1", "y", first)
	put(t, b, "jobs/1", "of b", 0)
	put(t, a, "jobs/2", "z", 0)
	put(t, a, "other", "w", 0)
	gone := put(t, a, "gone", "v", 0)
	if got := put(t, a, "gone", "", gone); got != 0 {
		t.Errorf("what was removed has version %d", got)
	}
	if second <= first {
		t.Errorf("version %d comes after %d", second, first)
	}

	for what, shelf := range map[string]*Shelf{"at once": shelf, "read again": d.open(t)} {
		a, b := store(shelf, "a"), store(shelf, "b")
		list, err := a.List(t.Context(), &frameworkv1.ListRequest{Prefix: "jobs/"})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"jobs/1", "jobs/2"}, list.GetKeys()); diff != "" {
			t.Errorf("%s: keys (-want +got):\n%s", what, diff)
		}
		for _, row := range []struct {
			s          frameworkv1.StoreServer
			key, value string
		}{{a, "jobs/1", "y"}, {b, "jobs/1", "of b"}, {a, "gone", ""}, {b, "other", ""}} {
			got, err := row.s.Get(t.Context(), &frameworkv1.GetRequest{Key: row.key})
			if err != nil || string(got.GetValue()) != row.value || (got.GetVersion() == 0) != (row.value == "") {
				t.Errorf("%s: %s is %q, version %d, %v; want %q", what, row.key, got.GetValue(), got.GetVersion(), err, row.value)
			}
		}
	}
}

func TestShelfRefuses(t *testing.T) {
	d := &disk{records: map[string]Record{}}
	s := store(d.open(t), "a")
	version := put(t, s, "key", "value", 0)
	large := strings.Repeat("x", MaxValue)
	for i := range MaxAdapter/MaxValue - 1 {
		put(t, s, "fill/"+strings.Repeat("i", i+1), large, 0)
	}
	for what, row := range map[string]struct {
		key, value string
		version    uint64
		want       codes.Code
	}{
		"a version of before":       {"key", "new", version - 1, codes.Aborted},
		"a key that is there":       {"key", "new", 0, codes.Aborted},
		"a key that is not there":   {"none", "new", 7, codes.Aborted},
		"a value that is too large": {"new", large + "x", 0, codes.ResourceExhausted},
		"more than there is room":   {"new", large, 0, codes.ResourceExhausted},
		"no key":                    {"", "x", 0, codes.InvalidArgument},
		"a long key":                {strings.Repeat("k", MaxKey+1), "x", 0, codes.InvalidArgument},
		"a key that climbs":         {"a/../b", "x", 0, codes.InvalidArgument},
		"an empty part":             {"a//b", "x", 0, codes.InvalidArgument},
		"another sign":              {"a b", "x", 0, codes.InvalidArgument},
	} {
		_, err := s.Put(t.Context(), &frameworkv1.PutRequest{Key: row.key, Value: []byte(row.value), Version: row.version})
		if status.Code(err) != row.want {
			t.Errorf("%s: %v, want %v", what, err, row.want)
		}
	}
	if _, err := s.Put(t.Context(), &frameworkv1.PutRequest{Key: "never", Version: 0}); err != nil {
		t.Errorf("removing what was never there: %v", err)
	}

	// A write that fails changes nothing, and may be tried again.
	d.fail = errors.New("the disk is full")
	if _, err := s.Put(t.Context(), &frameworkv1.PutRequest{Key: "key", Value: []byte("new"), Version: version}); !errors.Is(err, d.fail) {
		t.Errorf("a write that fails: %v", err)
	}
	got, err := s.Get(t.Context(), &frameworkv1.GetRequest{Key: "key"})
	if err != nil || string(got.GetValue()) != "value" || got.GetVersion() != version {
		t.Errorf("after a write that failed: %v, %v", got, err)
	}
	d.fail = nil
	if again := put(t, s, "key", "new", version); again <= version {
		t.Errorf("version %d comes after %d", again, version)
	}
}

func TestDamagedShelf(t *testing.T) {
	if _, err := NewShelf([]Record{{Adapter: "a", Key: "k", Data: []byte("short")}}, nil); err == nil || !strings.Contains(err.Error(), `adapter "a"`) {
		t.Errorf("a record that is too short: %v", err)
	}
}

func TestServingIsChecked(t *testing.T) {
	endpoint := func(pairs ...string) (s *frameworkv1.ServeResponse) {
		s = &frameworkv1.ServeResponse{}
		for i := 0; i < len(pairs); i += 2 {
			s.Endpoints = append(s.Endpoints, &frameworkv1.Endpoint{Name: pairs[i], Address: pairs[i+1]})
		}
		return s
	}
	variable := func(name, value string) *frameworkv1.ServeResponse {
		return &frameworkv1.ServeResponse{ExecutorEnvironment: []*frameworkv1.EnvironmentVariable{{Name: name, Value: value}}}
	}
	for what, row := range map[string]struct {
		s    *frameworkv1.ServeResponse
		want string
	}{
		"nothing":            {endpoint(), ""},
		"two":                {endpoint("mesos", "h:1", "mesos_tls", "[::1]:2"), ""},
		"a name with spaces": {endpoint("me sos", "h:1"), "named an endpoint"},
		"one twice":          {endpoint("mesos", "h:1", "mesos", "h:2"), "twice"},
		"no port":            {endpoint("mesos", "h"), "not host:port"},
		"a variable":         {variable("A", "b=c"), ""},
		"no variable":        {variable("", "b"), "environment"},
		"an assignment":      {variable("A=b", "c"), "environment"},
		"a zero byte":        {variable("A", "b\x00c"), "environment"},
	} {
		err := checkServing(row.s)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s: %v, want %q", what, err, row.want)
		}
	}
}
