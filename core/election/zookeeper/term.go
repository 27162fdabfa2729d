package zookeeper

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/hashicorp/go-hclog"

	"github.com/mezzo-os/mezzo/core/zookeeper"
)

// term is a candidacy with its session, and, once it has won, a leadership.
type term struct {
	election *Election
	own      *candidacy
	session  *zookeeper.Session
	node     string // its name below the election's

	once     sync.Once
	resigned chan struct{}
	done     chan struct{}
}

// Done closes when this candidate no longer leads.
func (t *term) Done() <-chan struct{} { return t.done }

// Resign gives the leadership up. It does not wait for the ensemble to know.
func (t *term) Resign() {
	t.once.Do(func() { close(t.resigned) })
	<-t.done
}

func (e *Election) log() hclog.Logger {
	if e.options.Session.Logger == nil {
		return hclog.NewNullLogger()
	}
	return e.options.Session.Logger
}

// enter creates the node. When the connection is lost meanwhile, it may be there
// already: its random part tells.
func (t *term) enter(ctx context.Context) error {
	var random [16]byte
	if _, err := rand.Read(random[:]); err != nil {
		return err
	}
	name := prefix + hex.EncodeToString(random[:]) + "-"
	dir := t.election.dir
	tried := false
	node, err := zookeeper.Do(ctx, t.session, func(c *zk.Conn) (string, error) {
		if tried {
			names, _, err := c.Children(dir)
			if err != nil {
				return "", err
			}
			for _, n := range order(names) {
				if strings.HasPrefix(n, name) {
					return dir + "/" + n, nil
				}
			}
		}
		tried = true
		return c.Create(dir+"/"+name, encode(t.own.candidate()), zk.FlagEphemeral|zk.FlagSequence, t.session.ACL(true))
	})
	if err != nil {
		return fmt.Errorf("create a node below %s: %w", dir, err)
	}
	t.node = strings.TrimPrefix(node, dir+"/")
	return nil
}

// await waits until the candidate before this one has gone or changed, and
// publishes this one's endpoints meanwhile.
func (t *term) await(ctx context.Context, before string) error {
	for {
		events, err := t.watch(ctx, before)
		if err != nil || events == nil {
			return err
		}
		for again := false; !again; {
			select {
			case <-events:
				again = true
			case <-t.own.updated:
				if err := t.publish(ctx); err != nil {
					return err
				}
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
}

// watch watches a candidate's node; nil: it is not there.
func (t *term) watch(ctx context.Context, name string) (<-chan zk.Event, error) {
	return zookeeper.Do(ctx, t.session, func(c *zk.Conn) (<-chan zk.Event, error) {
		// A watch on data leaves nothing behind when there is no such node.
		_, _, events, err := c.GetW(t.election.dir + "/" + name)
		if errors.Is(err, zk.ErrNoNode) {
			return nil, nil
		}
		return events, err
	})
}

// publish writes what the candidate says of itself.
func (t *term) publish(ctx context.Context) error {
	_, err := zookeeper.Do(ctx, t.session, func(c *zk.Conn) (struct{}, error) {
		_, err := c.Set(t.election.dir+"/"+t.node, encode(t.own.candidate()), -1)
		return struct{}{}, err
	})
	return err
}

// hold keeps the term until it is over, and ends its session.
func (t *term) hold() {
	e := t.election
	ctx, cancel := context.WithCancel(e.life)
	why := make(chan string, 3)
	var watching sync.WaitGroup
	watching.Go(func() { t.watchNode(ctx, why) })
	watching.Go(func() { t.watchSilence(ctx, why) })
	var reason string
	select {
	case <-t.resigned:
		reason = "it was given up"
	case <-t.session.Expired():
		reason = "its session has expired"
	case reason = <-why:
	case <-e.life.Done():
		reason = "the election is closed"
	}
	e.log().Info("the term is over", "reason", reason)
	e.forget(t.own)
	close(t.done)
	cancel()
	t.session.Close()
	watching.Wait()
}

// watchNode says when the node is gone, and publishes what changes.
func (t *term) watchNode(ctx context.Context, why chan<- string) {
	for {
		events, err := t.watch(ctx, t.node)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			why <- "its node cannot be watched: " + err.Error()
			return
		case events == nil:
			why <- "its node is gone"
			return
		}
		for again := false; !again; {
			select {
			case <-events:
				again = true
			case <-t.own.updated:
				if err := t.publish(ctx); err != nil && ctx.Err() == nil {
					why <- "its node cannot be written: " + err.Error()
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// watchSilence says when the ensemble has not been heard of for two thirds of
// the session.
func (t *term) watchSilence(ctx context.Context, why chan<- string) {
	for {
		left := t.session.Timeout()*2/3 - t.session.Silence()
		if left <= 0 {
			why <- fmt.Sprintf("nothing was heard of ZooKeeper for %s of a session of %s", t.session.Silence().Round(time.Millisecond), t.session.Timeout())
			return
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return
		}
	}
}
