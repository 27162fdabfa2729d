package agent_test

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/state"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// tokenCall is a call of executor x's, or of whom else the name says, with a
// token; empty: none.
func tokenCall(kind executorv1.Call_Type, name, token string) *executorv1.Call {
	c := &executorv1.Call{
		Type: kind.Enum(), FrameworkId: &mezzov1.FrameworkID{Value: proto.String("F1")}, ExecutorId: &mezzov1.ExecutorID{Value: proto.String(name)},
	}
	switch kind {
	case executorv1.Call_SUBSCRIBE:
		c.Subscribe = &executorv1.Call_Subscribe{}
	case executorv1.Call_MESSAGE:
		c.Message = &executorv1.Call_Message{Data: []byte("x")}
	}
	if token != "" {
		c.Token = &token
	}
	return c
}

// Nobody acts as an executor without its token: not with another's, not with
// one that he has made, not with that of an earlier run. The token is as good as
// ever after a restart of the agent, and is only in the executor's environment.
func TestExecutorTokens(t *testing.T) {
	k, m, at := newKernel(), newMaster(t), newExecutorAt(t)
	p := start(t, options(t, m, newIsolator(t, k).up()))
	at.be(p)
	m.ready()
	other := customExecutor()
	other.ExecutorId.Value = proto.String("y")
	m.runUnder(customExecutor(), "t1")
	x, environment := k.root(t)
	token := variable(t, environment, "MEZZO_EXECUTOR_TOKEN")
	m.runUnder(other, "t2")
	k.await(t, "the other executor's start", func(k *kernel) bool {
		return len(k.containers) == 2 && k.called("start "+second(k, x))(k)
	})
	k.mu.Lock()
	y := second(k, x)
	k.mu.Unlock()
	another := variable(t, k.environment(t, y), "MEZZO_EXECUTOR_TOKEN")

	conn, err := dial(at.served)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := executorv1.NewExecutorClient(conn)
	subscribe := func(token string) (*executorv1.Event, error) {
		t.Helper()
		stream, err := client.Subscribe(within(t), tokenCall(executorv1.Call_SUBSCRIBE, "x", token))
		if err != nil {
			t.Fatal(err)
		}
		return stream.Recv()
	}
	message := func(token string) executorv1.CallResult_Code {
		t.Helper()
		calls, err := client.Calls(within(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := calls.Send(tokenCall(executorv1.Call_MESSAGE, "x", token)); err != nil {
			t.Fatal(err)
		}
		r, err := calls.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if err := calls.CloseSend(); err != nil {
			t.Fatal(err)
		}
		return r.GetCode()
	}
	parts := strings.Split(token, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT"}`))
	bad := map[string]struct {
		token string
		code  codes.Code
		call  executorv1.CallResult_Code
	}{
		"none":                {"", codes.Unauthenticated, executorv1.CallResult_UNAUTHENTICATED},
		"nonsense":            {"nonsense", codes.Unauthenticated, executorv1.CallResult_UNAUTHENTICATED},
		"another's":           {another, codes.PermissionDenied, executorv1.CallResult_UNAUTHORIZED},
		"unsigned":            {none + "." + parts[1] + ".", codes.Unauthenticated, executorv1.CallResult_UNAUTHENTICATED},
		"another's signature": {parts[0] + "." + parts[1] + "." + strings.Split(another, ".")[2], codes.Unauthenticated, executorv1.CallResult_UNAUTHENTICATED},
		"cut":                 {token[:len(token)-1], codes.Unauthenticated, executorv1.CallResult_UNAUTHENTICATED},
	}
	all := func(when string) {
		t.Helper()
		for name, c := range bad {
			if _, err := subscribe(c.token); status.Code(err) != c.code {
				t.Errorf("%s, token %s: %v, want %v", when, name, err, c.code)
			}
			if code := message(c.token); code != c.call {
				t.Errorf("%s, token %s: a call is answered with %v, want %v", when, name, code, c.call)
			}
		}
		if event, err := subscribe(token); err != nil || event.GetType() != executorv1.Event_SUBSCRIBED {
			t.Fatalf("%s, its own token: %v, %v", when, event, err)
		}
		if code := message(token); code != executorv1.CallResult_ACCEPTED {
			t.Errorf("%s, its own token: a call is answered with %v", when, code)
		}
	}
	all("at first")
	if info, err := os.Stat(filepath.Join(p.options.DataDir, "agent.db")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the database with the key: %v, %v", info.Mode(), err)
	}
	next := start(t, p.crashed(t))
	at.be(next)
	m.registered()
	all("after a restart")
	k.exit(x, nil)
	k.await(t, "the executor's cleanup", k.called("cleanup "+x))
	m.runUnder(customExecutor(), "t3")
	k.await(t, "its next run", func(k *kernel) bool { return len(k.containers) == 2 && k.called("start "+second(k, y))(k) })
	if _, err := subscribe(token); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the token of an earlier run: %v", err)
	}
}

// Executors that come by an adapter need a token where that asks for one: then it
// passes it on. They find it where the adapter wants it.
func TestExecutorTokensByAdapter(t *testing.T) {
	k, m := newKernel(), newMaster(t)
	o := options(t, m, newIsolator(t, k).up())
	o.Adapters = []string{"mesos"}
	p := start(t, o)
	p.AdapterUp(within(t), "mesos", []state.Variable{{Name: "MEZZO_EXECUTOR_TOKEN", Value: "forged"}}, nil, "MESOS_TOKEN")
	m.ready()
	m.runUnder(customExecutor(), "t1")
	_, environment := k.root(t)
	token := variable(t, environment, "MESOS_TOKEN")
	if got := variable(t, environment, "MEZZO_EXECUTOR_TOKEN"); got != token || strings.Count(token, ".") != 2 {
		t.Errorf("the tokens are %q and %q", got, token)
	}
	by := newExecutorAt(t)
	by.agent = p.ExecutorServer("mesos")
	own := newExecutorAt(t)
	own.be(p)
	subscribe := func(at *executorAt, token string) codes.Code {
		t.Helper()
		conn, err := dial(at.served)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		stream, err := executorv1.NewExecutorClient(conn).Subscribe(within(t), tokenCall(executorv1.Call_SUBSCRIBE, "x", token))
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return status.Code(err)
	}
	for _, c := range []struct {
		what  string
		at    *executorAt
		token string
		want  codes.Code
	}{
		{"by the adapter, without", by, "", codes.OK},
		{"by the adapter, with its own", by, token, codes.OK},
		{"by the adapter, with a wrong one", by, "x.y.z", codes.Unauthenticated},
		{"by itself, without", own, "", codes.Unauthenticated},
		{"by itself, with its own", own, token, codes.OK},
		{"by the adapter, without, when it had come by itself", by, "", codes.Unauthenticated},
	} {
		if got := subscribe(c.at, c.token); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}

// second is the container that is not this one. The lock is held.
func second(k *kernel, not string) string {
	for id := range k.containers {
		if id != not {
			return id
		}
	}
	return ""
}
