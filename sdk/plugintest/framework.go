package plugintest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	frameworkv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/framework/v1"
	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

const (
	checkEndpoints = "endpoints"
	checkCloses    = "closes"
)

// frameworkRules are what a framework adapter must keep, whatever its dialect:
// how it lives with its core.
func frameworkRules() []rule {
	return []rule{
		{"standby", "At a master that does not lead it serves all the same, and does not wait for it to lead.", playStandby},
		{checkEndpoints, "It tells endpoints by good names, each host:port, and listens there; environment by good names.", playEndpoints},
		{"leadership", "It lives on, and listens where it did, when its master begins to lead and ceases to.", playLeadership},
		{"store", "Keys and values that it puts in the store are such as the contract allows.", playStore},
		{"agent-side", "At an agent that has not registered yet it serves, or says that it does not serve at agents.", playAgentSide},
		{checkCloses, "After Shutdown nobody listens at its endpoints.", playCloses},
		{"comes-back", "Started again by a new core, after its process was ended or killed, it listens at the same endpoints.", playComesBack},
	}
}

// adapter is one run of an adapter, served by a core.
type adapter struct {
	c      *scenario
	core   *adapterCore
	plugin *Plugin
	answer *frameworkv1.ServeResponse
}

// adapter opens an instance with a data directory, and has it serve at a side.
func (c *scenario) adapter(side frameworkv1.Side, data string) (*adapter, error) {
	a := &adapter{c: c, core: newAdapterCore(), plugin: c.fresh()}
	c.undo = append(c.undo, a.core.end)
	if a.plugin.Offer == nil {
		c.skipf("what opened the plugin cannot offer it a core")
	}
	c.suite.data = data
	if err := c.suite.configure(c.call(), a.plugin); err != nil {
		c.skipf("the plugin is not configured: %v", err)
	}
	id, err := a.plugin.Offer(func(r grpc.ServiceRegistrar) { a.core.register(r, side) })
	if err != nil {
		c.skipf("offer the plugin a core: %v", err)
	}
	a.answer, err = frameworkv1.NewFrameworkClient(a.plugin.Conn).Serve(c.call(), &frameworkv1.ServeRequest{
		Side: side, Core: id, Hostname: "localhost", Version: "0.1.0",
	})
	return a, err
}

// serves is an adapter at a master that is standby.
func (c *scenario) serves() *adapter {
	a, err := c.adapter(frameworkv1.Side_SIDE_MASTER, c.dataDir("master"))
	if err != nil {
		c.skipf("it does not serve at a master: %v", err)
	}
	return a
}

// dataDir is a directory of a scenario's own, which is kept while it runs.
func (c *scenario) dataDir(name string) string {
	dir := filepath.Join(c.suite.temp, c.rule.name, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.failf("make a data directory: %v", err)
	}
	return dir
}

func playStandby(c *scenario) {
	began := time.Now()
	_, err := c.adapter(frameworkv1.Side_SIDE_MASTER, c.dataDir("master"))
	switch {
	case status.Code(err) == codes.DeadlineExceeded:
		c.failf("Serve at a standby has not returned after %v", time.Since(began).Round(time.Millisecond))
	case err != nil:
		c.failf("Serve at a standby failed: %v", err)
	}
}

var (
	endpointName = regexp.MustCompile(`^[a-z0-9_]+$`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

func playEndpoints(c *scenario) {
	a := c.serves()
	seen := map[string]bool{}
	for _, e := range a.answer.GetEndpoints() {
		switch host, port, err := net.SplitHostPort(e.GetAddress()); {
		case !endpointName.MatchString(e.GetName()):
			c.failf("an endpoint's name is %q; want small letters, digits and underscores", e.GetName())
		case seen[e.GetName()]:
			c.failf("endpoint %s is told twice", e.GetName())
		case err != nil || host == "" || port == "" || port == "0":
			c.failf("endpoint %s is at %q; want host:port, as others reach it", e.GetName(), e.GetAddress())
		case net.ParseIP(host).IsUnspecified():
			c.failf("endpoint %s is at %s, which nobody else can reach; the core's host name is localhost", e.GetName(), e.GetAddress())
		}
		seen[e.GetName()] = true
	}
	for _, v := range a.answer.GetExecutorEnvironment() {
		if !variableName.MatchString(v.GetName()) {
			c.failf("a variable for executors is called %q", v.GetName())
		}
	}
	a.listens("")
}

// listens wants somebody at every endpoint.
func (a *adapter) listens(when string) {
	for _, e := range a.answer.GetEndpoints() {
		if err := reach(e.GetAddress(), a.c.suite.options.Patience); err != nil {
			a.c.follows(checkEndpoints)
			a.c.failf("%snobody listens at endpoint %s: %v", when, e.GetName(), err)
		}
	}
}

// follows skips the rest of a scenario that stands on a rule which is broken.
func (c *scenario) follows(name string) {
	if v := c.suite.verdicts[name]; v != c.verdict && v.Outcome == Failed {
		c.skipf("what is wrong may follow from the failure of %s", name)
	}
}

func reach(address string, patience time.Duration) error {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err == nil {
		conn.Close()
	}
	return err
}

// lives wants the plugin to be there, and not to be unhealthy.
func (a *adapter) lives(when string) {
	client := pluginv1.NewPluginClient(a.plugin.Conn)
	if _, err := client.Ping(a.c.call(), &pluginv1.PingRequest{}); err != nil {
		a.c.failf("%sPing failed: %v", when, err)
	}
	stream, err := client.Health(a.c.call(), &pluginv1.HealthRequest{})
	if err != nil {
		a.c.failf("%sHealth failed: %v", when, err)
	}
	h, err := stream.Recv()
	if err != nil || h.GetState() == pluginv1.HealthStatus_STATE_UNHEALTHY {
		a.c.failf("%sit is %v, %v", when, h, err)
	}
	a.listens(when)
}

func playLeadership(c *scenario) {
	a := c.serves()
	const (
		standby    = frameworkv1.LeadershipState_STATE_STANDBY
		recovering = frameworkv1.LeadershipState_STATE_RECOVERING
		leading    = frameworkv1.LeadershipState_STATE_LEADING
	)
	epoch := uint64(0)
	for _, state := range []frameworkv1.LeadershipState_State{standby, recovering, leading, standby, recovering, leading, leading, recovering, standby} {
		if state == recovering {
			epoch++
		}
		a.core.become(state, epoch)
		time.Sleep(c.suite.window()) // in which it may do as it likes
		a.lives(fmt.Sprintf("its master is %s: ", strings.ToLower(strings.TrimPrefix(state.String(), "STATE_"))))
	}
}

func playStore(c *scenario) {
	a := c.serves()
	a.core.become(frameworkv1.LeadershipState_STATE_LEADING, 1)
	time.Sleep(c.suite.window())
	if problems := a.core.misuses(); len(problems) > 0 {
		c.failf("%s", strings.Join(problems, "\n"))
	}
}

func playAgentSide(c *scenario) {
	a, err := c.adapter(frameworkv1.Side_SIDE_AGENT, c.dataDir("agent"))
	switch {
	case status.Code(err) == codes.DeadlineExceeded:
		c.failf("Serve at an agent has not returned: %v", err)
	case err != nil:
		c.skipf("it does not serve at agents: %v", err)
	}
	a.lives("")
}

func playComesBack(c *scenario) {
	data := c.dataDir("master")
	places := func(a *adapter) (out []string) {
		for _, e := range a.answer.GetEndpoints() {
			out = append(out, e.GetName()+"="+e.GetAddress())
		}
		slices.Sort(out)
		return out
	}
	var first []string
	for i, end := range []func(*Plugin){func(p *Plugin) { p.Close() }, func(p *Plugin) {
		if p.Kill != nil {
			p.Kill()
		}
		p.Close()
	}, nil} {
		a, err := c.adapter(frameworkv1.Side_SIDE_MASTER, data)
		if err != nil && i > 0 {
			c.failf("started again, it does not serve: %v", err)
		} else if err != nil {
			c.skipf("it does not serve at a master: %v", err)
		}
		if i == 0 {
			first = places(a)
		}
		if now := places(a); !slices.Equal(now, first) {
			c.follows(checkCloses)
			c.failf("it listened at %v, and listens at %v when it was started again", first, now)
		}
		a.listens("")
		if end != nil {
			end(a.plugin)
			a.core.end()
		}
	}
}

func playCloses(c *scenario) {
	a := c.serves()
	if _, err := pluginv1.NewPluginClient(a.plugin.Conn).Shutdown(c.call(), &pluginv1.ShutdownRequest{}); err != nil && status.Code(err) != codes.Unavailable {
		c.failf("Shutdown failed: %v", err)
	}
	for _, e := range a.answer.GetEndpoints() {
		for deadline := time.Now().Add(shutdownGrace); ; time.Sleep(5 * time.Millisecond) {
			var refused net.Error
			err := reach(e.GetAddress(), c.suite.options.Patience)
			if err != nil && !errors.As(err, &refused) {
				c.failf("endpoint %s: %v", e.GetName(), err)
			}
			if err != nil {
				break
			}
			if time.Now().After(deadline) {
				c.failf("%v after Shutdown somebody listens at endpoint %s, %s", shutdownGrace, e.GetName(), e.GetAddress())
			}
		}
	}
}
