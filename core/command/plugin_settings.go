package command

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/mitchellh/go-wordwrap"

	"github.com/mezzo-os/mezzo/sdk/plugin"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

const noSettings = "Its config block holds nothing.\n"

func isEmpty(s *pluginv1.Schema) bool { return len(s.GetAttributes())+len(s.GetBlocks()) == 0 }

// settingsText shows for a terminal what a plugin's config block may hold.
func settingsText(s *pluginv1.Schema, width int) string {
	if isEmpty(s) {
		return noSettings
	}
	var b strings.Builder
	b.WriteString("config {\n")
	writeSettings(&b, s, "  ", width)
	b.WriteString("}\n")
	return b.String()
}

func writeSettings(b *strings.Builder, s *pluginv1.Schema, indent string, width int) {
	comment := func(text string) {
		if text == "" {
			return
		}
		for line := range strings.SplitSeq(wordwrap.WrapString(text, uint(max(width-len(indent)-2, 30))), "\n") {
			fmt.Fprintf(b, "%s# %s\n", indent, line)
		}
	}
	for i, a := range s.GetAttributes() {
		if i > 0 {
			b.WriteString("\n")
		}
		comment(a.GetHelp())
		about := typeName(a.GetType())
		switch {
		case a.GetRequired():
			about += ", required"
		case a.GetDefaultJson() != "":
			about += ", default " + defaultText(a)
		}
		if a.GetSecret() {
			about += ", secret"
		}
		fmt.Fprintf(b, "%s%s = (%s)\n", indent, a.GetName(), about)
	}
	for i, x := range s.GetBlocks() {
		if i+len(s.GetAttributes()) > 0 {
			b.WriteString("\n")
		}
		comment(strings.TrimSpace(x.GetHelp() + " " + timesText(x)))
		label := ""
		if x.GetLabel() != "" {
			label = " \"" + strings.ToUpper(x.GetLabel()) + "\""
		}
		fmt.Fprintf(b, "%s%s%s {\n", indent, x.GetName(), label)
		writeSettings(b, x.GetSchema(), indent+"  ", width)
		fmt.Fprintf(b, "%s}\n", indent)
	}
}

// timesText is a sentence about how often a block may stand; empty for a block
// that may stand once, as blocks do.
func timesText(x *pluginv1.Block) string {
	switch {
	case x.GetRepeated() && x.GetRequired():
		return "Once at least."
	case x.GetRepeated():
		return "As often as needed."
	case x.GetRequired():
		return "Required."
	}
	return ""
}

// settingsMarkdown is what a plugin's config block may hold, as tables like those of
// docs/configuration.md: one of the attributes, and one of each block.
func settingsMarkdown(s *pluginv1.Schema) string {
	if isEmpty(s) {
		return noSettings
	}
	var b strings.Builder
	if len(s.GetAttributes()) > 0 {
		writeTable(&b, s)
	}
	writeBlocks(&b, s, "")
	return strings.TrimPrefix(b.String(), "\n")
}

func writeTable(b *strings.Builder, s *pluginv1.Schema) {
	b.WriteString("| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n")
	for _, a := range s.GetAttributes() {
		meaning, standard := meaningAndDefault(a)
		kind := typeName(a.GetType())
		if a.GetSecret() {
			kind += ", secret"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s | %s |\n", a.GetName(), kind, standard, prose(meaning))
	}
}

func writeBlocks(b *strings.Builder, s *pluginv1.Schema, in string) {
	for _, x := range s.GetBlocks() {
		times := "at most one"
		switch {
		case x.GetRepeated() && x.GetRequired():
			times = "at least one"
		case x.GetRepeated():
			times = "as often as needed"
		case x.GetRequired():
			times = "must be written"
		}
		if x.GetLabel() != "" {
			times += ", with the label " + strings.ToUpper(x.GetLabel())
		}
		b.WriteString("\n" + strings.TrimSpace(fmt.Sprintf("Block `%s`%s, %s. %s", x.GetName(), in, times, prose(x.GetHelp()))) + "\n")
		if len(x.GetSchema().GetAttributes()) > 0 {
			b.WriteString("\n")
			writeTable(b, x.GetSchema())
		}
		writeBlocks(b, x.GetSchema(), " in `"+x.GetName()+"`"+in)
	}
}

// typeName is a type as docs/configuration.md has it.
func typeName(t pluginv1.Type) string {
	switch t {
	case pluginv1.Type_TYPE_STRING:
		return "text"
	case pluginv1.Type_TYPE_BOOL:
		return "flag"
	case pluginv1.Type_TYPE_INT:
		return "whole number"
	case pluginv1.Type_TYPE_NUMBER:
		return "number"
	case pluginv1.Type_TYPE_DURATION:
		return "duration"
	case pluginv1.Type_TYPE_SIZE:
		return "size"
	case pluginv1.Type_TYPE_STRING_LIST:
		return "list of texts"
	case pluginv1.Type_TYPE_STRING_MAP:
		return "map of texts"
	}
	return "of a type that this version does not know"
}

// meaningAndDefault are the cells of a table. What holds where nothing is written,
// if that is no value, is the last sentence of a help text: "By default all."
func meaningAndDefault(a *pluginv1.Attribute) (meaning, standard string) {
	const begins = "By default "
	meaning = strings.TrimSpace(a.GetHelp())
	hasValue := a.GetRequired() || a.GetDefaultJson() != ""
	if i := strings.LastIndex(meaning, begins); !hasValue && (i == 0 || i > 0 && meaning[i-1] == ' ') {
		if last := strings.TrimSuffix(meaning[i+len(begins):], "."); last != "" && !strings.Contains(last, ". ") {
			meaning, standard = meaning[:i], prose(last)
		}
	}
	meaning = strings.TrimSuffix(strings.TrimSpace(meaning), ".")
	switch {
	case a.GetRequired():
		standard = "none; must be written"
	case a.GetDefaultJson() != "":
		standard = "`" + defaultText(a) + "`"
	case standard == "":
		standard = "none"
	}
	return meaning, standard
}

// wordOfCode are the words of a help text that are names, paths, addresses or lists.
var wordOfCode = regexp.MustCompile(`^([a-z0-9]+(_[a-z0-9]+)+|/[^\s]+|\["[^\s]*|[a-z]+://[^\s]+)$`)

// prose is a help text in Markdown. Plugins' authors write plain text.
func prose(text string) string {
	words := strings.Split(text, " ")
	for i, word := range words {
		core := strings.TrimRight(strings.TrimPrefix(word, "("), ".,:;)")
		if wordOfCode.MatchString(core) {
			before, after, _ := strings.Cut(word, core)
			words[i] = before + "`" + strings.ReplaceAll(core, "|", `\|`) + "`" + after
		} else {
			words[i] = cell(word)
		}
	}
	return strings.Join(words, " ")
}

// defaultText writes a default as the operator would.
func defaultText(a *pluginv1.Attribute) string {
	number, err := strconv.ParseInt(a.GetDefaultJson(), 10, 64)
	switch {
	case err == nil && a.GetType() == pluginv1.Type_TYPE_DURATION:
		return strconv.Quote(durationText(time.Duration(number)))
	case err == nil && a.GetType() == pluginv1.Type_TYPE_SIZE:
		return strconv.Quote(plugin.Size(number).String())
	}
	var list []string
	if a.GetType() == pluginv1.Type_TYPE_STRING_LIST && json.Unmarshal([]byte(a.GetDefaultJson()), &list) == nil {
		for i, text := range list {
			list[i] = strconv.Quote(text)
		}
		return "[" + strings.Join(list, ", ") + "]"
	}
	return a.GetDefaultJson()
}

// durationText is a duration without the units that it has nothing of: "2m", not
// "2m0s".
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
