// Package znode tells Mesos's clients by ZooKeeper where the leader is: one
// ephemeral node `json.info_0000000007` below a path, whose data is the leader's
// MasterInfo as JSON, for as long as this master leads.
//
// Nothing else may be below that path: some clients take its smallest child for
// the leader, whatever it is.
package znode

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"

	"github.com/mezzo-os/mezzo/sdk/wirejson"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

const (
	label = "json.info_"

	// sessionTimeout is how long a leader that died is still shown, as with Mesos.
	sessionTimeout = 10 * time.Second
	// lookInterval is how often the node, and the master, are looked at. A watch
	// would tell sooner that somebody removed the node, which happens about never.
	lookInterval = 3 * time.Second
	// aliveTimeout is how long a master may take to say that it lives.
	aliveTimeout = 5 * time.Second

	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
)

// URL is a place in ZooKeeper.
type URL struct {
	Servers []string
	Path    string // "/mesos"; "/" is the root
	Auth    string // "user:password"; empty: none
}

// Parse reads "zk://[user:password@]host:port,…[/path]", as Mesos has it:
// credentials end at the last @.
func Parse(text string) (URL, error) {
	rest, ok := strings.CutPrefix(text, "zk://")
	if !ok {
		return URL{}, errors.New(`it must be "zk://host:port,…/path"`)
	}
	u := URL{Path: "/"}
	if at := strings.LastIndexByte(rest, '@'); at >= 0 {
		u.Auth, rest = rest[:at], rest[at+1:]
		if user, password, both := strings.Cut(u.Auth, ":"); !both || user == "" || password == "" {
			return URL{}, errors.New("what is before the @ must be user:password")
		}
	}
	hosts, path, _ := strings.Cut(rest, "/")
	if path = strings.TrimSuffix(path, "/"); path != "" {
		u.Path = "/" + path
	}
	for part := range strings.SplitSeq(path, "/") {
		if path != "" && (part == "" || part == "." || part == "..") {
			return URL{}, fmt.Errorf("%q is not the path of a node", u.Path)
		}
	}
	for host := range strings.SplitSeq(hosts, ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			return URL{}, fmt.Errorf("%q is not host:port", host)
		}
		u.Servers = append(u.Servers, host)
	}
	return u, nil
}

// Leadership is what a publisher must know of the master.
type Leadership interface {
	// Leads gives what to publish, nil while this master does not lead, and a
	// channel that closes when that may have changed.
	Leads() (*mezzov1.MasterInfo, <-chan struct{})
	// Alive asks the master itself: one that stands still says nothing of who
	// leads.
	Alive(ctx context.Context) error
}

// Publish keeps the node as long as the master leads, until ctx ends. While
// ZooKeeper cannot be reached it goes on trying.
func Publish(ctx context.Context, u URL, l Leadership, log *slog.Logger) {
	pause := backoffMin
	for ctx.Err() == nil {
		info, changed := l.Leads()
		if info == nil {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		began := time.Now()
		err := hold(ctx, u, l, info, log)
		if err == nil {
			continue
		}
		if time.Since(began) > time.Minute {
			pause = backoffMin
		}
		log.Warn("clients cannot be told by ZooKeeper that this master leads; trying again", "path", u.Path, "pause", pause, "error", err)
		select {
		case <-time.After(pause/2 + rand.N(pause/2+1)):
		case <-ctx.Done():
		}
		pause = min(2*pause, backoffMax)
	}
}

// logger takes the client's lines to the debug level.
type logger struct{ *slog.Logger }

func (l logger) Printf(format string, args ...any) { l.Debug(fmt.Sprintf(format, args...)) }

// hold has a session with the node in it. It returns nil when the master does
// not lead any more, or leads as another one.
func hold(ctx context.Context, u URL, l Leadership, info *mezzov1.MasterInfo, log *slog.Logger) error {
	text, err := wirejson.NewEncoder().Marshal(info)
	if err != nil {
		return err
	}
	if err := alive(ctx, l); err != nil {
		return err
	}
	expired := make(chan struct{}, 1)
	conn, events, err := zk.Connect(u.Servers, sessionTimeout, zk.WithLogger(logger{log}), zk.WithLogInfo(false), zk.WithEventCallback(func(e zk.Event) {
		if e.State == zk.StateExpired {
			select {
			case expired <- struct{}{}:
			default:
			}
		}
	}))
	if err != nil {
		return err
	}
	defer func() {
		conn.Close()
		for range events { // until the client is done
		}
	}()
	ended := make(chan struct{})
	defer close(ended)
	go closeWhenOver(ctx, conn, l, info, ended)
	over := func() bool {
		now, _ := l.Leads()
		return ctx.Err() != nil || now.GetId() != info.GetId()
	}
	node, err := create(conn, u, text)
	if err == nil {
		log.Info("clients are told by ZooKeeper that this master leads", "node", node)
	}
	for err == nil {
		if over() {
			return nil
		}
		_, changed := l.Leads()
		select {
		case <-ctx.Done():
		case <-changed:
		case <-expired:
			err = errors.New("the session has expired")
		case <-time.After(lookInterval):
			var there bool
			if there, _, err = conn.Exists(node); err == nil && !there {
				err = fmt.Errorf("the node %s is gone", node)
			}
			if errors.Is(err, zk.ErrConnectionClosed) || errors.Is(err, zk.ErrNoServer) {
				err = nil // the session may outlive the connection
			}
			if err == nil {
				err = alive(ctx, l)
			}
		}
	}
	if over() {
		return nil
	}
	return err
}

func alive(ctx context.Context, l Leadership) error {
	ctx, cancel := context.WithTimeout(ctx, aliveTimeout)
	defer cancel()
	if err := l.Alive(ctx); err != nil {
		return fmt.Errorf("the master does not answer: %w", err)
	}
	return nil
}

// closeWhenOver closes the connection when ctx ends, or the master does not lead
// any more as info says: the client's calls know no context, and end with it.
func closeWhenOver(ctx context.Context, conn *zk.Conn, l Leadership, info *mezzov1.MasterInfo, ended <-chan struct{}) {
	_, changed := l.Leads()
	for {
		select {
		case <-ctx.Done():
			conn.Close()
			return
		case <-changed:
			var now *mezzov1.MasterInfo
			if now, changed = l.Leads(); now.GetId() != info.GetId() {
				conn.Close()
				return
			}
		case <-ended:
			return
		}
	}
}

// create makes the node, and those above it where they are missing.
func create(conn *zk.Conn, u URL, text []byte) (string, error) {
	acl := zk.WorldACL(zk.PermAll)
	if u.Auth != "" {
		if err := conn.AddAuth("digest", []byte(u.Auth)); err != nil {
			return "", err
		}
		acl = append(zk.AuthACL(zk.PermAll), zk.WorldACL(zk.PermRead)...)
	}
	parts := strings.Split(strings.Trim(u.Path, "/"), "/")
	for i := range parts {
		node := "/" + strings.Join(parts[:i+1], "/")
		if node == "/" {
			continue
		}
		there, _, err := conn.Exists(node)
		if err == nil && !there {
			_, err = conn.Create(node, []byte{}, 0, acl)
		}
		if err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return "", fmt.Errorf("create %s: %w", node, err)
		}
	}
	return conn.Create(strings.TrimSuffix(u.Path, "/")+"/"+label, text, zk.FlagEphemeral|zk.FlagSequence, acl)
}
