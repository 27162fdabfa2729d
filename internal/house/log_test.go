package house

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// logKeys are words that do not stand for a thing in the log, and those that do:
// who searches the logs of master, agents and plugins for a task has to know one.
var logKeys = map[string]string{
	"task": "task_id", "framework": "framework_id", "executor": "executor_id", "container": "container_id", "agent": "agent_id",
	"offer": "offer_id", "taskid": "task_id", "frameworkid": "framework_id", "agentid": "agent_id", "slave_id": "agent_id",
	"id": "whose id it is", "err": "error", "host": "hostname", "plugin_id": "plugin",
}

// logged are the methods that log, and where their keys begin.
var logged = map[string]int{"Trace": 1, "Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "With": 0, "log": 2, "logf": 2, "Log": 2}

// TestLogKeys is that ids have the same keys in every log line, and that keys are
// words.
func TestLogKeys(t *testing.T) {
	word := regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	found := 0
	for _, p := range packages(t) {
		short := p.short()
		if !below(short, "core") && !below(short, "plugins") && !below(short, "sdk") || below(short, "sdk/scaffold") || below(short, "sdk/examples") {
			continue
		}
		for _, name := range p.GoFiles {
			if strings.HasSuffix(name, ".pb.go") {
				continue
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				for _, key := range keysOf(n) {
					found++
					text, _ := strconv.Unquote(key.Value)
					if !word.MatchString(text) {
						t.Errorf("%s: the key %q is not a word", fset.Position(key.Pos()), text)
					}
					if better := logKeys[text]; better != "" {
						t.Errorf("%s: the key %q is %s everywhere else", fset.Position(key.Pos()), text, better)
					}
				}
				return true
			})
		}
	}
	if found < 300 {
		t.Errorf("only %d keys were found: they are looked for wrongly", found)
	}
}

// keysOf are the keys of a call that logs.
func keysOf(n ast.Node) (keys []*ast.BasicLit) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return nil
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	first, logs := logged[method.Sel.Name]
	if !logs || len(call.Args) < first+2 {
		return nil
	}
	if first > 0 { // a message stands before them
		if message, ok := call.Args[first-1].(*ast.BasicLit); !ok || message.Kind != token.STRING {
			return nil
		}
	}
	for i := first; i+1 < len(call.Args); i += 2 {
		if key, ok := call.Args[i].(*ast.BasicLit); ok && key.Kind == token.STRING {
			keys = append(keys, key)
		}
	}
	return keys
}
