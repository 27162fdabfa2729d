package adapter

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
)

// The bounds of what adapters store, in bytes.
const (
	MaxKey   = 256
	MaxValue = 64 << 10
	// MaxAdapter bounds all keys and values of one adapter together.
	MaxAdapter = 1 << 20
)

// Record is one value as it is kept: under an adapter's key, with its version.
type Record struct {
	Adapter, Key string
	// Data is the value with its version; empty: there is none any more.
	Data []byte
}

// Shelf is what the adapters of one core store. It keeps everything in memory,
// which its bounds allow, and writes through. Safe for concurrent use.
type Shelf struct {
	write func(ctx context.Context, r Record) error

	writing sync.Mutex // one Put at a time
	mu      sync.RWMutex
	items   map[string]map[string]item // by adapter, then key
	next    uint64                     // version
}

type item struct {
	value   []byte
	version uint64
}

// versionBytes is how long the version is, before the value.
const versionBytes = 8

// NewShelf makes a shelf of all records that were ever written and not removed.
// write makes one durable; a shelf calls it once at a time.
func NewShelf(records []Record, write func(ctx context.Context, r Record) error) (*Shelf, error) {
	s := &Shelf{write: write, items: map[string]map[string]item{}, next: 1}
	for _, r := range records {
		if len(r.Data) <= versionBytes {
			return nil, fmt.Errorf("what framework adapter %q stored as %q is damaged: it has %d bytes", r.Adapter, r.Key, len(r.Data))
		}
		i := item{value: r.Data[versionBytes:], version: binary.BigEndian.Uint64(r.Data)}
		s.put(r.Adapter, r.Key, i)
		s.next = max(s.next, i.version+1)
	}
	return s, nil
}

func (s *Shelf) put(adapter, key string, i item) {
	if s.items[adapter] == nil {
		s.items[adapter] = map[string]item{}
	}
	s.items[adapter][key] = i
}

func (s *Shelf) get(adapter, key string) item {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.items[adapter][key]
}

func (s *Shelf) keys(adapter, prefix string) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := slices.Sorted(maps.Keys(s.items[adapter]))
	return slices.DeleteFunc(out, func(k string) bool { return !strings.HasPrefix(k, prefix) })
}

// size is what an adapter has on the shelf but for one key.
func (s *Shelf) sizeWithout(adapter, key string) int {
	s.mu.RLock()
	defer s.mu.RUnlock()
	n := 0
	for k, i := range s.items[adapter] {
		if k != key {
			n += len(k) + len(i.value)
		}
	}
	return n
}

// set writes a value, or removes it when it is empty, if the key has that
// version.
func (s *Shelf) set(ctx context.Context, adapter, key string, value []byte, version uint64) (uint64, error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	if has := s.get(adapter, key).version; has != version {
		return 0, status.Errorf(codes.Aborted, "key %q has version %d, not %d: somebody has changed it", key, has, version)
	}
	if len(value) == 0 {
		if version == 0 {
			return 0, nil
		}
		if err := s.write(ctx, Record{Adapter: adapter, Key: key}); err != nil {
			return 0, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.items[adapter], key)
		return 0, nil
	}
	if n := s.sizeWithout(adapter, key) + len(key) + len(value); n > MaxAdapter {
		return 0, status.Errorf(codes.ResourceExhausted, "the adapter would store %d bytes, the most is %d; remove something", n, MaxAdapter)
	}
	i := item{value: slices.Clone(value), version: s.next}
	data := append(binary.BigEndian.AppendUint64(nil, i.version), value...)
	// A version is used once, even when it is unknown what became of the write.
	s.next++
	if err := s.write(ctx, Record{Adapter: adapter, Key: key, Data: data}); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(adapter, key, i)
	return i.version, nil
}

// StoreServer serves the Store of one adapter from the shelf that there is, or
// says why there is none.
func StoreServer(adapter string, shelf func() (*Shelf, error)) frameworkv1.StoreServer {
	return &storeService{adapter: adapter, shelf: shelf}
}

// storeService serves the Store of one adapter.
type storeService struct {
	frameworkv1.UnimplementedStoreServer
	adapter string
	shelf   func() (*Shelf, error)
}

func (s *storeService) Get(_ context.Context, r *frameworkv1.GetRequest) (*frameworkv1.GetResponse, error) {
	shelf, err := s.shelf()
	if err != nil {
		return nil, err
	}
	i := shelf.get(s.adapter, r.GetKey())
	return &frameworkv1.GetResponse{Value: i.value, Version: i.version}, nil
}

func (s *storeService) Put(ctx context.Context, r *frameworkv1.PutRequest) (*frameworkv1.PutResponse, error) {
	if err := checkKey(r.GetKey()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if n := len(r.GetValue()); n > MaxValue {
		return nil, status.Errorf(codes.ResourceExhausted, "the value of key %q has %d bytes, the most is %d", r.GetKey(), n, MaxValue)
	}
	shelf, err := s.shelf()
	if err != nil {
		return nil, err
	}
	version, err := shelf.set(ctx, s.adapter, r.GetKey(), r.GetValue(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &frameworkv1.PutResponse{Version: version}, nil
}

func (s *storeService) List(_ context.Context, r *frameworkv1.ListRequest) (*frameworkv1.ListResponse, error) {
	shelf, err := s.shelf()
	if err != nil {
		return nil, err
	}
	return &frameworkv1.ListResponse{Keys: shelf.keys(s.adapter, r.GetPrefix())}, nil
}

// checkKey keeps to what every registry can have as a key.
func checkKey(key string) error {
	if len(key) > MaxKey {
		return fmt.Errorf("a key of %d bytes, the most is %d", len(key), MaxKey)
	}
	for _, part := range strings.Split(key, "/") {
		bad := strings.IndexFunc(part, func(r rune) bool {
			return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '.' && r != '_' && r != '-'
		})
		if part == "" || part == "." || part == ".." || bad >= 0 {
			return fmt.Errorf("key %q: want letters, digits, '.', '_' and '-', in parts between slashes", key)
		}
	}
	return nil
}
