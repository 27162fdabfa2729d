package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/recordio"
	"github.com/mezzo-os/mezzo/sdk/wirejson"
)

const (
	apiFrameworks = 100  // that are sent events at a time
	apiEvents     = 1000 // to each of them, a round
	apiCallers    = 32   // at a time
	apiCalls      = 500  // of each of them; of a lone one, four times as many
)

// mesosAPI measures the scheduler API of Mesos against the native one: how many
// calls a second it takes, what it adds to the time of one, and how many events a
// second reach a hundred frameworks. The clients are in this process, and share
// the processors with master and adapter.
func (b *bench) mesosAPI(ctx context.Context) error {
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{blocks: "framework \"mesos\" {\n  config {\n    listen = \"127.0.0.1:0\"\n  }\n}\n"})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	conn, err := mastertest.Dial(c.address())
	if err != nil {
		return err
	}
	defer conn.Close()
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * apiFrameworks}}
	defer client.CloseIdleConnections()
	over := func(media string) func(context.Context, int) (apiClient, error) {
		return func(ctx context.Context, i int) (apiClient, error) {
			return subscribeHTTP(ctx, client, "http://"+c.master.fields["mesos"]+"/api/v1/scheduler", media, i)
		}
	}
	t := b.table("The scheduler API of Mesos, beside the native one",
		"", fmt.Sprintf("calls/s of %d", apiCallers), "one call, µs", "added, µs", fmt.Sprintf("events/s to %d", apiFrameworks))
	var native time.Duration
	for _, way := range []struct {
		name string
		open func(context.Context, int) (apiClient, error)
	}{
		{"native gRPC", func(ctx context.Context, i int) (apiClient, error) { return subscribeNative(ctx, conn, i) }},
		{"HTTP, protobuf", over("application/x-protobuf")},
		{"HTTP, JSON", over("application/json")},
	} {
		m, err := b.measureAPI(ctx, way.open)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
		added := "-"
		if native == 0 {
			native = m.latency
		} else {
			added = number(float64(m.latency-native) / 1e3)
		}
		t.row(way.name, number(m.calls), number(float64(m.latency)/1e3), added, number(m.events))
	}
	t.print()
	return nil
}

// apiClient is a subscribed scheduler, spoken to in one way or another.
type apiClient interface {
	// call makes a call and waits for its answer. One at a time.
	call(*schedulerv1.Call) error
	// update waits for the next UPDATE.
	update() error
}

type apiMeasured struct {
	calls, events float64 // a second
	latency       time.Duration
}

func (b *bench) measureAPI(ctx context.Context, open func(context.Context, int) (apiClient, error)) (apiMeasured, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := make([]apiClient, apiFrameworks)
	for i := range clients {
		var err error
		if clients[i], err = open(ctx, i); err != nil {
			return apiMeasured{}, err
		}
	}
	calls := apiCalls
	if b.quick {
		calls /= 10
	}
	// Of an offer that nobody has: what is measured is the way, not the work.
	decline := func(c apiClient) error {
		return c.call(&schedulerv1.Call{Type: schedulerv1.Call_DECLINE.Enum(), Decline: &schedulerv1.Call_Decline{
			OfferIds: []*mezzov1.OfferID{{Value: proto.String("none")}},
		}})
	}
	var m apiMeasured
	var single []time.Duration
	for range 4 * calls {
		began := time.Now()
		if err := decline(clients[0]); err != nil {
			return m, err
		}
		single = append(single, time.Since(began))
	}
	m.latency = median(single)
	took, err := together(clients[:apiCallers], func(c apiClient) error {
		for range calls {
			if err := decline(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return m, err
	}
	m.calls = float64(apiCallers*calls) / took.Seconds()

	// A task that nobody knows is answered by one update.
	ask := &schedulerv1.Call_Reconcile{}
	for i := range apiEvents {
		ask.Tasks = append(ask.Tasks, &schedulerv1.Call_Reconcile_Task{TaskId: &mezzov1.TaskID{Value: proto.String(fmt.Sprintf("service-%d.0b8f4c1e-1c57-4f7e-9d2f-6f1d1a2b3c4d", i))}})
	}
	rounds := 5
	if b.quick {
		rounds = 1
	}
	took, err = together(clients, func(c apiClient) error {
		for range rounds {
			if err := c.call(&schedulerv1.Call{Type: schedulerv1.Call_RECONCILE.Enum(), Reconcile: ask}); err != nil {
				return err
			}
			for range apiEvents {
				if err := c.update(); err != nil {
					return err
				}
			}
		}
		return nil
	})
	m.events = float64(apiFrameworks*apiEvents*rounds) / took.Seconds()
	return m, err
}

// together has all clients work at a time, and tells how long the last took.
func together(clients []apiClient, work func(apiClient) error) (time.Duration, error) {
	errs := make([]error, len(clients))
	began := time.Now()
	var all sync.WaitGroup
	for i, c := range clients {
		all.Go(func() { errs[i] = work(c) })
	}
	all.Wait()
	return time.Since(began), errors.Join(errs...)
}

// apiInfo is a framework that wants nothing for itself.
func apiInfo(i int) *mezzov1.FrameworkInfo { return mastertest.Info(fmt.Sprint("api", i)) }

type nativeClient struct {
	id, stream string
	events     grpc.ServerStreamingClient[schedulerv1.Event]
	calls      grpc.BidiStreamingClient[schedulerv1.Call, schedulerv1.CallResult]
}

func subscribeNative(ctx context.Context, conn grpc.ClientConnInterface, i int) (apiClient, error) {
	service := schedulerv1.NewSchedulerClient(conn)
	events, err := service.Subscribe(ctx, &schedulerv1.Call_Subscribe{FrameworkInfo: apiInfo(i)})
	if err != nil {
		return nil, err
	}
	first, err := events.Recv()
	if err != nil {
		return nil, err
	}
	calls, err := service.Calls(ctx)
	return &nativeClient{
		id: first.GetSubscribed().GetFrameworkId().GetValue(), stream: first.GetSubscribed().GetStreamId(), events: events, calls: calls,
	}, err
}

func (c *nativeClient) call(call *schedulerv1.Call) error {
	whole := proto.CloneOf(call)
	whole.FrameworkId, whole.StreamId = &mezzov1.FrameworkID{Value: &c.id}, &c.stream
	if err := c.calls.Send(whole); err != nil {
		return err
	}
	result, err := c.calls.Recv()
	if err == nil && result.GetCode() != schedulerv1.CallResult_ACCEPTED {
		err = fmt.Errorf("%s: %s", result.GetCode(), result.GetMessage())
	}
	return err
}

func (c *nativeClient) update() error {
	for {
		event, err := c.events.Recv()
		if err != nil || event.GetType() == schedulerv1.Event_UPDATE {
			return err
		}
	}
}

// httpClient speaks JSON or protobuf over HTTP.
type httpClient struct {
	ctx                    context.Context
	client                 *http.Client
	url, media, id, stream string
	events                 *recordio.Reader
	// update knows an UPDATE by its first bytes, for reading it is the client's
	// own work.
	prefix []byte
	body   []byte // of the call that is being made
}

var benchJSON = wirejson.NewEncoder()

func subscribeHTTP(ctx context.Context, client *http.Client, url, media string, i int) (apiClient, error) {
	c := &httpClient{ctx: ctx, client: client, url: url, media: media, prefix: []byte(`{"type":"UPDATE"`)}
	if media != "application/json" {
		c.prefix = []byte{8, byte(schedulerv1.Event_UPDATE)}
	}
	response, err := c.post(&schedulerv1.Call{Type: schedulerv1.Call_SUBSCRIBE.Enum(), Subscribe: &schedulerv1.Call_Subscribe{FrameworkInfo: apiInfo(i)}})
	if err != nil {
		return nil, err
	}
	c.stream = response.Header.Get("Mesos-Stream-Id")
	c.events = recordio.NewReader(response.Body, recordio.DefaultLimit)
	record, err := c.events.Next()
	if err != nil {
		return nil, fmt.Errorf("SUBSCRIBE: %s: %w", response.Status, err)
	}
	first := &schedulerv1.Event{}
	if media == "application/json" {
		err = wirejson.NewDecoder().Unmarshal(record, first)
	} else {
		err = proto.Unmarshal(record, first)
	}
	c.id = first.GetSubscribed().GetFrameworkId().GetValue()
	return c, err
}

func (c *httpClient) post(call *schedulerv1.Call) (*http.Response, error) {
	var err error
	if c.media == "application/json" {
		c.body, err = benchJSON.Append(c.body[:0], call)
	} else {
		c.body, err = proto.MarshalOptions{}.MarshalAppend(c.body[:0], call)
	}
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(c.ctx, http.MethodPost, c.url, bytes.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	r.Header = http.Header{"Content-Type": {c.media}, "Accept": {c.media}}
	if c.stream != "" {
		r.Header["Mesos-Stream-Id"] = []string{c.stream}
	}
	return c.client.Do(r)
}

func (c *httpClient) call(call *schedulerv1.Call) error {
	whole := proto.CloneOf(call)
	whole.FrameworkId = &mezzov1.FrameworkID{Value: &c.id}
	response, err := c.post(whole)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusAccepted {
		err = fmt.Errorf("%s: %s", response.Status, text)
	}
	return err
}

func (c *httpClient) update() error {
	for {
		record, err := c.events.Next()
		if err != nil || bytes.HasPrefix(record, c.prefix) {
			return err
		}
	}
}
