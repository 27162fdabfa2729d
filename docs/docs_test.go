// Package docs_test holds the pages to the code that they speak of.
package docs_test

import (
	"encoding/xml"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
	"github.com/mezzo-os/mezzo/sdk/scaffold"
)

// TestQuotes is that every piece of Go in the authors' pages stands, word for
// word, in code of the SDK that is built and tested, or in the plugins that the
// pages begin.
func TestQuotes(t *testing.T) {
	code := sources(t, "../sdk")
	for name, kind := range map[string]pluginv1.Kind{"fair-cpus": plugin.Allocator, "site": plugin.Isolator, "runner": plugin.Framework} {
		files, err := scaffold.Files(scaffold.Plugin{Kind: kind, Name: name, SDK: scaffold.SDK{Version: "v0.1.0"}})
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			code += string(file.Data)
		}
	}
	block := regexp.MustCompile("(?ms)^```go\n(.*?)^```$")
	for page, least := range map[string]int{"plugin-authors.md": 4, "framework-authors.md": 6} {
		text := read(t, page)
		quotes := block.FindAllStringSubmatch(text, -1)
		if len(quotes) < least {
			t.Errorf("%s: %d pieces of Go were found, want %d at least", page, len(quotes), least)
		}
		for _, quote := range quotes {
			if !strings.Contains(code, quote[1]) {
				t.Errorf("%s: this is not, or not any more, in the SDK's code:\n%s", page, quote[1])
			}
		}
	}
}

// TestTranslation is that the Chinese README has the commands of the English one,
// which a test runs, in their order.
func TestTranslation(t *testing.T) {
	block := regexp.MustCompile("(?ms)^```(sh|text)[^\n]*\n(.*?)^```$")
	comment := regexp.MustCompile(` +# .*`)
	blocks := func(page string) (all []string) {
		for _, found := range block.FindAllStringSubmatch(read(t, page), -1) {
			all = append(all, comment.ReplaceAllString(found[2], ""))
		}
		return all
	}
	if diff := cmp.Diff(blocks("../README.md"), blocks("../README.zh-CN.md")); diff != "" {
		t.Errorf("-README.md +README.zh-CN.md:\n%s", diff)
	}
}

// TestPictures is that every picture is in a page, in light and in dark.
func TestPictures(t *testing.T) {
	pictures, err := filepath.Glob("pictures/*.svg")
	if err != nil || len(pictures) == 0 {
		t.Fatalf("no pictures: %v", err)
	}
	page := read(t, "concepts.md")
	for _, path := range pictures {
		if !strings.Contains(page, "]("+path+")") {
			t.Errorf("%s is in no page", path)
		}
		text := read(t, path)
		if err := xml.Unmarshal([]byte(text), new(struct{})); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if !strings.Contains(text, "prefers-color-scheme: dark") || !strings.Contains(text, "aria-label=") {
			t.Errorf("%s says nothing of dark pages, or to those who cannot see it", path)
		}
	}
}

// TestMigration is that every setting that the migration from Mesos names is in
// the configuration's manual.
func TestMigration(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `--[^|]*\\| ([^|]*) \\|")
	word := regexp.MustCompile("`[^`]*`")
	name := regexp.MustCompile(`[a-z]+(_[a-z]+)+|[a-z]{4,}`)
	command := regexp.MustCompile("^`mezzo |^`zk://|^`--")
	manual := read(t, "configuration.md")
	rows := row.FindAllStringSubmatch(read(t, "mesos-migration.md"), -1)
	if len(rows) < 130 {
		t.Errorf("only %d rows of flags were found", len(rows))
	}
	for _, found := range rows {
		for _, quoted := range word.FindAllString(found[1], -1) {
			if command.MatchString(quoted) {
				continue
			}
			for _, n := range name.FindAllString(quoted, -1) {
				if !strings.Contains(manual, n) {
					t.Errorf("mesos-migration.md names %s in %s, which configuration.md does not know", n, quoted)
				}
			}
		}
	}
}

// TestIndex is that the index has every page.
func TestIndex(t *testing.T) {
	index := read(t, "README.md")
	pages, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		if page != "README.md" && !strings.Contains(index, "]("+page+")") {
			t.Errorf("docs/README.md does not name %s", page)
		}
	}
}

func sources(t *testing.T, root string) string {
	t.Helper()
	var all strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && filepath.Ext(path) == ".go" && !strings.HasSuffix(path, ".pb.go") {
			all.WriteString(read(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all.String()
}

// TestLinks is that links between pages, and to the headings of their own page,
// lead somewhere.
func TestLinks(t *testing.T) {
	pages, err := filepath.Glob("*.md")
	if err != nil || len(pages) == 0 {
		t.Fatalf("no pages: %v", err)
	}
	pages = append(pages, "../README.md", "../README.zh-CN.md", "../CONTRIBUTING.md")
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, page := range pages {
		text := read(t, page)
		headings := map[string]bool{}
		for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(text, -1) {
			headings[anchor(heading[1])] = true
		}
		for _, found := range link.FindAllStringSubmatch(text, -1) {
			target := found[1]
			switch {
			case strings.Contains(target, "://"):
			case strings.HasPrefix(target, "#"):
				if !headings[target[1:]] {
					t.Errorf("%s: there is no heading for %s", page, target)
				}
			default:
				path, _, _ := strings.Cut(target, "#")
				if _, err := os.Stat(filepath.Join(filepath.Dir(page), path)); err != nil {
					t.Errorf("%s: the link %s leads nowhere: %v", page, target, err)
				}
			}
		}
	}
}

// anchor is the name that a heading has in links.
func anchor(heading string) string {
	var out strings.Builder
	for _, r := range strings.ToLower(heading) {
		switch {
		case r == ' ':
			out.WriteRune('-')
		case r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			out.WriteRune(r)
		}
	}
	return out.String()
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
