package agent

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/core/agent/state"
)

// TestPowerCut cuts the power at every boundary of every write of a sequence of
// checkpoints: after each page, with pages in any order while nothing has been
// synced, and in the midst of the page that makes a transaction count. What is
// read afterwards is what was there before the transaction or after it, whole;
// and before it unless that last page was begun.
func TestPowerCut(t *testing.T) {
	const seed, steps = 7, 25
	chance := rand.New(rand.NewPCG(seed, seed))
	dir := t.TempDir()
	path := filepath.Join(dir, "agent.db")
	s, err := openStore(path)
	if err != nil {
		t.Fatal(err)
	}
	page := s.db.Info().PageSize
	model := map[string]string{}
	before := readFile(t, path)
	for step := range steps {
		old := maps.Clone(model)
		checkpoint := state.Checkpoint{Sequence: uint64(step + 1), Records: randomRecords(chance, model)}
		if err := s.write([]state.Checkpoint{checkpoint}); err != nil {
			t.Fatal(err)
		}
		after := readFile(t, path)
		c := cut{t: t, name: fmt.Sprintf("step %d", step), path: filepath.Join(dir, "cut.db"), before: before, after: after, page: page}
		c.all(chance, old, maps.Clone(model))
		before = after
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// randomRecords are a checkpoint's, and what they make of the model: additions,
// changes and removals, some larger than a page.
func randomRecords(chance *rand.Rand, model map[string]string) []state.Record {
	var list []state.Record
	for range 1 + chance.IntN(12) {
		r := state.Record{Bucket: []string{"tasks", "containers", "agent"}[chance.IntN(3)], Key: fmt.Sprintf("k%02d", chance.IntN(40))}
		key := r.Bucket + "/" + r.Key
		if chance.IntN(4) == 0 {
			delete(model, key)
		} else {
			r.Value = bytes.Repeat([]byte{byte('a' + chance.IntN(26))}, 1+chance.IntN(1500)*chance.IntN(8))
			model[key] = string(r.Value)
		}
		list = append(list, r)
	}
	return list
}

// cut is one transaction, and the file before and after it.
type cut struct {
	t             *testing.T
	name, path    string
	before, after []byte
	page          int
}

func (c *cut) all(chance *rand.Rand, old, fresh map[string]string) {
	var data, metas []int
	for at := 0; at < len(c.after); at += c.page {
		if at < len(c.before) && bytes.Equal(c.before[at:at+c.page], c.after[at:at+c.page]) {
			continue
		}
		if at < 2*c.page {
			metas = append(metas, at)
		} else {
			data = append(data, at)
		}
	}
	if len(metas) != 1 {
		c.t.Fatalf("%s: %d meta pages were written: a transaction that counts by more than one page cannot be atomic", c.name, len(metas))
	}
	grown := append(bytes.Clone(c.before), make([]byte, len(c.after)-len(c.before))...)
	c.check("nothing but room", grown, old)
	file := bytes.Clone(grown)
	for n, at := range data {
		copy(file[at:at+c.page], c.after[at:])
		c.check(fmt.Sprintf("after %d of %d pages", n+1, len(data)), file, old)
	}
	for n := range 5 {
		file := bytes.Clone(grown)
		for _, at := range data {
			// A page may itself be torn.
			if copied := chance.IntN(3) * c.page / 2; copied > 0 {
				copy(file[at:at+copied], c.after[at:])
			}
		}
		c.check(fmt.Sprintf("some pages, %d", n), file, old)
	}
	for torn := 8; torn < 96; torn += 8 {
		part := bytes.Clone(file)
		copy(part[metas[0]:metas[0]+torn], c.after[metas[0]:])
		c.check(fmt.Sprintf("the meta page torn after %d bytes", torn), part, old, fresh)
	}
	c.check("all of it", c.after, fresh)
}

// check opens the file as an agent does, and compares what it reads.
func (c *cut) check(what string, file []byte, allowed ...map[string]string) {
	c.t.Helper()
	if err := os.WriteFile(c.path, file, 0o600); err != nil {
		c.t.Fatal(err)
	}
	s, err := openStore(c.path)
	if err != nil {
		c.t.Fatalf("%s, %s: %v", c.name, what, err)
	}
	defer s.close()
	records, err := s.load()
	if err != nil {
		c.t.Fatalf("%s, %s: %v", c.name, what, err)
	}
	got := map[string]string{}
	for _, r := range records {
		got[r.Bucket+"/"+r.Key] = string(r.Value)
	}
	for _, want := range allowed {
		if maps.Equal(got, want) {
			return
		}
	}
	c.t.Fatalf("%s, %s: what is read is of no transaction (-want +got):\n%s", c.name, what, cmp.Diff(allowed[0], got))
}
