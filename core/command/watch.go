package command

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// The kinds of objects that a master tells of.
const (
	kindAgent       = "agent"
	kindFramework   = "framework"
	kindTask        = "task"
	kindOperation   = "operation"
	kindRole        = "role"
	kindPlugin      = "plugin"
	kindMaintenance = "maintenance"
	kindOffer       = "offer"
)

// objectKey names an object. A task's id is unique in its framework only.
type objectKey struct{ kind, framework, id string }

// delta is one object as it was and as it is. Without old it is new, without new
// it is gone.
type delta struct {
	key      objectKey
	old, new proto.Message
}

// object is the newest that is known of it.
func (d *delta) object() proto.Message {
	if d.new != nil {
		return d.new
	}
	return d.old
}

// mirror is a copy of the cluster, made of the events of Operator.Watch. A new
// snapshot, after the stream was lost, takes the place of the copy only when it is
// whole; what differs then is told as if it had been heard. Its objects are never
// changed, only replaced. It is for one goroutine.
type mirror struct {
	objects map[objectKey]proto.Message
	coming  map[objectKey]proto.Message // the snapshot that is not whole yet; nil: none
}

// begin says that a snapshot comes.
func (m *mirror) begin() { m.coming = map[objectKey]proto.Message{} }

// whole reports whether there is a copy yet.
func (m *mirror) whole() bool { return m.objects != nil }

// apply takes an event over and returns what it changed. The first snapshot
// changes nothing: it is what was there.
func (m *mirror) apply(e *operatorv1.WatchEvent) []delta {
	if e.GetSnapshotEnd() != nil {
		before := m.objects
		m.objects, m.coming = m.coming, nil
		if before == nil {
			return nil
		}
		return difference(before, m.objects)
	}
	key, object, known := eventObject(e)
	switch {
	case !known: // of a newer master
		return nil
	case m.coming != nil:
		m.coming[key] = object
		return nil
	}
	old := m.objects[key]
	if object == nil {
		delete(m.objects, key)
		if old == nil {
			return nil
		}
	} else {
		m.objects[key] = object
	}
	return []delta{{key: key, old: old, new: object}}
}

// difference lists what differs, in the order of kinds and ids.
func difference(before, after map[objectKey]proto.Message) []delta {
	var out []delta
	for key, old := range before {
		if object, still := after[key]; !still {
			out = append(out, delta{key: key, old: old})
		} else if !proto.Equal(old, object) {
			out = append(out, delta{key: key, old: old, new: object})
		}
	}
	for key, object := range after {
		if before[key] == nil {
			out = append(out, delta{key: key, new: object})
		}
	}
	slices.SortFunc(out, func(a, b delta) int { return compareKeys(a.key, b.key) })
	return out
}

func compareKeys(a, b objectKey) int {
	return cmp.Or(cmp.Compare(a.kind, b.kind), cmp.Compare(a.id, b.id), cmp.Compare(a.framework, b.framework))
}

// eventObject is the object that an event tells of, nil if it is gone.
func eventObject(e *operatorv1.WatchEvent) (key objectKey, object proto.Message, known bool) {
	switch x := e.Event.(type) {
	case *operatorv1.WatchEvent_Agent:
		return objectKey{kind: kindAgent, id: x.Agent.Id}, x.Agent, true
	case *operatorv1.WatchEvent_AgentRemoved:
		return objectKey{kind: kindAgent, id: x.AgentRemoved}, nil, true
	case *operatorv1.WatchEvent_Framework:
		return objectKey{kind: kindFramework, id: x.Framework.Id}, x.Framework, true
	case *operatorv1.WatchEvent_FrameworkRemoved:
		return objectKey{kind: kindFramework, id: x.FrameworkRemoved}, nil, true
	case *operatorv1.WatchEvent_Task:
		return objectKey{kindTask, x.Task.FrameworkId, x.Task.Id}, x.Task, true
	case *operatorv1.WatchEvent_TaskRemoved:
		return objectKey{kindTask, x.TaskRemoved.FrameworkId, x.TaskRemoved.TaskId}, nil, true
	case *operatorv1.WatchEvent_Offer:
		return objectKey{kind: kindOffer, id: x.Offer.Id}, x.Offer, true
	case *operatorv1.WatchEvent_OfferRemoved:
		return objectKey{kind: kindOffer, id: x.OfferRemoved}, nil, true
	case *operatorv1.WatchEvent_Role:
		return objectKey{kind: kindRole, id: x.Role.Name}, x.Role, true
	case *operatorv1.WatchEvent_RoleRemoved:
		return objectKey{kind: kindRole, id: x.RoleRemoved}, nil, true
	case *operatorv1.WatchEvent_Plugin:
		return objectKey{kind: kindPlugin, id: x.Plugin.Id}, x.Plugin, true
	case *operatorv1.WatchEvent_PluginRemoved:
		return objectKey{kind: kindPlugin, id: x.PluginRemoved}, nil, true
	case *operatorv1.WatchEvent_Operation:
		return objectKey{kind: kindOperation, id: uuidText(x.Operation.GetUuid().GetValue())}, x.Operation, true
	case *operatorv1.WatchEvent_OperationRemoved:
		return objectKey{kind: kindOperation, id: uuidText(x.OperationRemoved)}, nil, true
	case *operatorv1.WatchEvent_Maintenance:
		return objectKey{kind: kindMaintenance, id: "schedule"}, x.Maintenance, true
	}
	return objectKey{}, nil, false
}

// uuidText is a UUID as people write it.
func uuidText(b []byte) string {
	h := hex.EncodeToString(b)
	if len(b) != 16 {
		return h
	}
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// objectsOf lists the objects of a kind, in order.
func objectsOf[T proto.Message](m *mirror, kind string, compare func(a, b T) int) []T {
	var keys []objectKey
	for key := range m.objects {
		if key.kind == kind {
			keys = append(keys, key)
		}
	}
	slices.SortFunc(keys, compareKeys)
	out := make([]T, len(keys))
	for i, key := range keys {
		out[i] = m.objects[key].(T)
	}
	if compare != nil {
		slices.SortStableFunc(out, compare)
	}
	return out
}

// heard is what comes of a watch: an event, or that a stream begins or is lost.
type heard struct {
	event *operatorv1.WatchEvent
	// conn is set when a stream begins, with a snapshot, on this connection to the
	// leading master. It is closed when the stream is lost.
	conn *grpc.ClientConn
	lost error
	// over is set when it will not come back.
	over bool
}

// notice says on standard error that a watch has lost its master: once, however
// often connecting fails, and once that it is back.
type notice struct {
	w    io.Writer
	what string    // "the stream of events"
	lost time.Time // zero: it is not lost
}

func (n *notice) isLost(err error) {
	if n.lost.IsZero() {
		n.lost = time.Now()
		fmt.Fprintf(n.w, "mezzo: %s is lost, connecting again: %s\n", n.what, oneLine(err.Error()))
	}
}

func (n *notice) isBack() {
	if !n.lost.IsZero() {
		fmt.Fprintf(n.w, "mezzo: %s is back, after %s\n", n.what, time.Since(n.lost).Round(100*time.Millisecond))
		n.lost = time.Time{}
	}
}

const (
	rewatchMin = 200 * time.Millisecond
	rewatchMax = 5 * time.Second
)

// watch keeps watching the leading master, whoever that is, until ctx ends. What
// goes wrong at the beginning is returned; later it is told, and tried again. The
// channel is closed at the end. Who does not read it ends ctx.
func (c *cli) watch(ctx context.Context, q *operatorv1.WatchRequest) (<-chan heard, error) {
	s, err := c.openWatch(ctx, q)
	if err != nil {
		return nil, plain(err)
	}
	out := make(chan heard, 64)
	tell := func(h heard) bool {
		select {
		case out <- h:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() {
		defer close(out)
		for pause := rewatchMin; ; {
			if s != nil {
				err = s.relay(tell)
				pause = rewatchMin
			}
			if ctx.Err() != nil || !tell(heard{lost: plain(err), over: hopeless(err)}) || hopeless(err) {
				return
			}
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause/2 + rand.N(pause)):
			}
			pause = min(pause*8/5, rewatchMax)
			s, err = c.openWatch(ctx, q)
		}
	}()
	return out, nil
}

// hopeless reports an error that no new attempt will change.
func hopeless(err error) bool {
	switch status.Code(err) {
	case codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// watchStream is a stream whose first event has come.
type watchStream struct {
	conn   *grpc.ClientConn
	first  *operatorv1.WatchEvent
	stream grpc.ServerStreamingClient[operatorv1.WatchEvent]
}

func (c *cli) openWatch(ctx context.Context, q *operatorv1.WatchRequest) (*watchStream, error) {
	opening, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	conn, err := c.dial(opening)
	if err != nil {
		return nil, err
	}
	// The stream lives longer than opening; should its first event not come in
	// time, closing the connection ends it.
	stop := context.AfterFunc(opening, func() { conn.Close() })
	stream, err := operatorv1.NewOperatorClient(conn).Watch(ctx, q)
	if err == nil {
		s := &watchStream{conn: conn, stream: stream}
		if s.first, err = stream.Recv(); err == nil && stop() {
			return s, nil
		}
	}
	conn.Close()
	if opening.Err() != nil && ctx.Err() == nil {
		return nil, errors.New("the master does not answer in time")
	}
	return nil, err
}

// relay tells what comes, until it ends.
func (s *watchStream) relay(tell func(heard) bool) error {
	defer s.conn.Close()
	if !tell(heard{conn: s.conn}) {
		return context.Canceled
	}
	for event := s.first; ; {
		if !tell(heard{event: event}) {
			return context.Canceled
		}
		var err error
		if event, err = s.stream.Recv(); err != nil {
			return err
		}
	}
}
