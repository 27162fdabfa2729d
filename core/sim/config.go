package sim

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

var errNoFailure = errors.New("sim: the run to be shrunk does not fail")

// String is the Config as ParseConfig reads it: name=value, with spaces between.
func (c Config) String() string {
	c = c.withDefaults()
	out := []string{
		fmt.Sprintf("seed=%d", c.Seed), fmt.Sprintf("roll=%d", c.Roll), fmt.Sprintf("agents=%d", c.Agents), fmt.Sprintf("frameworks=%d", c.Frameworks),
		fmt.Sprintf("duration=%v", c.Duration), fmt.Sprintf("wire=%v", c.Wire), fmt.Sprintf("every=%v", c.Faults.Every),
	}
	if len(c.Faults.Only) > 0 {
		var names []string
		for _, f := range c.Faults.Only {
			names = append(names, strings.ReplaceAll(string(f), " ", "-"))
		}
		out = append(out, "only="+strings.Join(names, ","))
	}
	if c.Faults.Keep != nil {
		var numbers []string
		for _, n := range c.Faults.Keep {
			numbers = append(numbers, strconv.Itoa(n))
		}
		out = append(out, "keep="+strings.Join(numbers, ","))
	}
	return strings.Join(out, " ")
}

// ParseConfig reads what Config.String has written. An error names what is wrong.
func ParseConfig(text string) (Config, error) {
	var c Config
	for _, field := range strings.Fields(text) {
		name, value, _ := strings.Cut(field, "=")
		var err error
		switch name {
		case "seed":
			c.Seed, err = strconv.ParseUint(value, 10, 64)
		case "roll":
			c.Roll, err = strconv.ParseUint(value, 10, 64)
		case "agents":
			c.Agents, err = strconv.Atoi(value)
		case "frameworks":
			c.Frameworks, err = strconv.Atoi(value)
		case "duration":
			c.Duration, err = time.ParseDuration(value)
		case "wire":
			c.Wire, err = strconv.ParseBool(value)
		case "every":
			c.Faults.Every, err = time.ParseDuration(value)
		case "only":
			err = c.Faults.parseOnly(value)
		case "keep":
			err = c.Faults.parseKeep(value)
		default:
			err = errors.New("there is nothing of that name; there are seed, roll, agents, frameworks, duration, wire, every, only and keep")
		}
		if err != nil {
			return c, fmt.Errorf("sim: %q: %w", field, err)
		}
	}
	return c, nil
}

func (f *Faults) parseOnly(value string) error {
	for _, name := range strings.Split(value, ",") {
		kind := Fault(strings.ReplaceAll(name, "-", " "))
		if !slices.ContainsFunc(faultWeights, func(x weighted) bool { return x.fault == kind }) {
			return fmt.Errorf("there is no fault %q", kind)
		}
		f.Only = append(f.Only, kind)
	}
	return nil
}

func (f *Faults) parseKeep(value string) error {
	f.Keep = []int{}
	if value == "" {
		return nil
	}
	for _, number := range strings.Split(value, ",") {
		n, err := strconv.Atoi(number)
		if err != nil {
			return err
		}
		f.Keep = append(f.Keep, n)
	}
	return nil
}
