// Command telegraf-mesos reads the metrics of a Mesos master and agent once, with
// telegraf's own input "mesos", and prints every field that it found as a line of
// JSON. It is a module of its own, so that nobody else needs what telegraf needs.
//
//	telegraf-mesos MASTER-URL AGENT-URL
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/influxdata/telegraf"
	"github.com/influxdata/telegraf/logger"
	"github.com/influxdata/telegraf/plugins/inputs/mesos"
)

// accumulator prints what an input gathers.
type accumulator struct {
	telegraf.Accumulator // nothing else of it is used
	mu                   sync.Mutex
	failed               bool
}

// AddFields implements telegraf.Accumulator.
func (a *accumulator) AddFields(_ string, fields map[string]any, tags map[string]string, _ ...time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	line, err := json.Marshal(map[string]any{"role": tags["role"], "state": tags["state"], "fields": fields})
	if err != nil {
		a.AddError(err)
		return
	}
	fmt.Println(string(line))
}

// AddError implements telegraf.Accumulator.
func (a *accumulator) AddError(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		a.failed = true
	}
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: telegraf-mesos MASTER-URL AGENT-URL")
		os.Exit(2)
	}
	input := &mesos.Mesos{Timeout: 5000, Masters: os.Args[1:2], Slaves: os.Args[2:], Log: logger.New("inputs", "mesos", "")}
	out := &accumulator{}
	out.AddError(input.Gather(out))
	if out.failed {
		os.Exit(1)
	}
}
