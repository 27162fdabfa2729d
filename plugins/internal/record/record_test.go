package record

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestRoundTrip: whatever a task's arguments hold, the shim reads what the
// plugin wrote, and a message cut anywhere is refused or shorter, never other.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var r Record
		for range rapid.IntRange(1, 5).Draw(t, "fields") {
			value := string(rapid.SliceOf(rapid.Byte()).Draw(t, "value"))
			r.Add(rapid.StringMatching(`[a-z_]+`).Draw(t, "key"), value)
		}
		text := r.Marshal()
		got, err := Unmarshal(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Fatal(diff)
		}
		cut := text[:rapid.IntRange(0, len(text)-1).Draw(t, "cut")]
		if part, err := Unmarshal(cut); err == nil && !cmp.Equal(append(Record{}, r[:len(part)]...), append(Record{}, part...)) {
			t.Fatalf("cut to %q it reads as %v", cut, part)
		}
		words := r.All(r[0].Key)
		back, err := ParseWords(Words(words...))
		if err != nil || !cmp.Equal(words, back) {
			t.Fatalf("words %q came back as %q, %v", words, back, err)
		}
	})
}

func TestWriteReplacesWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "status")
	for _, durable := range []bool{false, true} {
		want := Record{{Key: Code, Value: strings.Repeat("x", 100)}, {Key: Known, Value: "1"}}
		if err := Write(path, want, durable); err != nil {
			t.Fatal(err)
		}
		got, err := Read(path)
		if err != nil || !cmp.Equal(want, got) {
			t.Errorf("read %v, %v", got, err)
		}
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left beside it: %v", entries)
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte("code \"3\"\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Unmarshal(text)
		if err != nil {
			return
		}
		again, err := Unmarshal(r.Marshal())
		if err != nil || !cmp.Equal(r, again) {
			t.Errorf("%q: %v, %v", text, again, err)
		}
	})
}
