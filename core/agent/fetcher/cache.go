package fetcher

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
)

// cache keeps downloads. Its books are in memory; a restart begins empty. How
// large a download is turns out when it is over, and only then others are
// removed for it: meanwhile the cache may be over its limit, by less than that.
type cache struct {
	dir   string
	limit int64

	mu    sync.Mutex
	used  int64 // of items, and what is kept free for downloads that run
	items map[itemKey]*item
	order []*item // what was used longest ago first
}

type itemKey struct {
	uid uint32
	id  string // of the source
}

// item is one download. Users counts who needs it just now: it is not removed
// before they are done.
type item struct {
	key   itemKey
	name  string // in the user's directory
	bytes int64
	users int
	// Loading is closed when the download is over, one way or the other.
	loading chan struct{}
	err     error
}

func newCache(dir string, limit int64) (*cache, error) {
	if err := os.RemoveAll(dir); err != nil {
		return nil, fmt.Errorf("the fetch cache of the last run cannot be removed: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("the fetch cache cannot be made: %w", err)
	}
	return &cache{dir: dir, limit: limit, items: map[itemKey]*item{}}, nil
}

func (c *cache) use() (used, total int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used, c.limit
}

func (c *cache) userDir(uid uint32) string {
	return filepath.Join(c.dir, strconv.FormatUint(uint64(uid), 10))
}

// open opens a user's part of the cache, and makes it first when need be.
func (c *cache) open(who User) (*os.File, error) {
	dir := c.userDir(who.UID)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("the fetch cache cannot be used: %w", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Lchown(dir, int(who.UID), int(who.GID)); err != nil {
			return nil, fmt.Errorf("the fetch cache cannot be used: %w", err)
		}
	}
	return os.Open(dir)
}

// get gives an item, which put takes back. If there is none it is downloaded,
// by one however many ask. It fails with errTooBig when there is no room.
func (c *cache) get(ctx context.Context, who User, source string, download func(name string, most int64) error) (*item, error) {
	key := itemKey{who.UID, hex.EncodeToString(digest(source))}
	for {
		c.mu.Lock()
		it := c.items[key]
		if it == nil {
			it = &item{key: key, name: key.id, users: 1, loading: make(chan struct{})}
			c.items[key] = it
			c.mu.Unlock()
			return c.load(it, download)
		}
		it.users++
		c.mu.Unlock()
		select {
		case <-it.loading:
		case <-ctx.Done():
			c.put(it)
			return nil, ctx.Err()
		}
		if it.err == nil {
			return it, nil
		}
		c.put(it)
		if !errors.Is(it.err, context.Canceled) {
			return nil, it.err
		}
		// Who downloaded it was cancelled, and we were not: we do it.
	}
}

// load downloads an item that this caller has entered. While it runs all the
// room that can be had belongs to it; then what it does not need is given back.
func (c *cache) load(it *item, download func(name string, most int64) error) (*item, error) {
	room := c.reserve()
	err := fmt.Errorf("the cache has no room: %w", errTooBig)
	if room > 0 {
		err = download(it.name, room)
	}
	if err == nil {
		var info os.FileInfo
		if info, err = os.Lstat(filepath.Join(c.userDir(it.key.uid), it.name)); err == nil {
			it.bytes = info.Size()
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.used += it.bytes - room
	it.err = err
	close(it.loading)
	if err != nil {
		delete(c.items, it.key)
		return nil, err
	}
	c.order = append(c.order, it)
	c.shrink()
	return it, nil
}

// reserve takes room for one download: half of what is not in use just now, so
// that others that begin meanwhile find some too.
func (c *cache) reserve() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	busy := c.used
	for _, it := range c.order {
		if it.users == 0 {
			busy -= it.bytes
		}
	}
	room := (c.limit - busy + 1) / 2
	if room <= 0 {
		return 0
	}
	c.used += room
	return room
}

// shrink removes what was used longest ago until the rest fits.
func (c *cache) shrink() {
	c.order = slices.DeleteFunc(c.order, func(it *item) bool {
		if c.used <= c.limit || it.users > 0 {
			return false
		}
		// The user may have emptied the directory; then it is gone all the same.
		_ = os.Remove(filepath.Join(c.userDir(it.key.uid), it.name))
		delete(c.items, it.key)
		c.used -= it.bytes
		return true
	})
}

// put says that an item is not needed any more.
func (c *cache) put(it *item) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it.users--
	if it.err != nil {
		return
	}
	if at := slices.Index(c.order, it); at >= 0 {
		c.order = append(slices.Delete(c.order, at, at+1), it)
	}
	c.shrink()
}
