package mirrortest

import (
	"cmp"
	"context"
	"sync"

	"google.golang.org/grpc"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// LogLevels is the log level of a core: it stays as it is set.
type LogLevels struct {
	mu    sync.Mutex
	level string
	asked []*operatorv1.SetLogLevelRequest
}

// SetLogLevel implements operator.LogLevels.
func (l *LogLevels) SetLogLevel(_ context.Context, q *operatorv1.SetLogLevelRequest, _ ...grpc.CallOption) (*operatorv1.LogLevel, error) {
	l.mu.Lock()
	l.level, l.asked = q.GetLevel(), append(l.asked, q)
	l.mu.Unlock()
	return l.GetLogLevel(context.Background(), nil)
}

// GetLogLevel implements operator.LogLevels.
func (l *LogLevels) GetLogLevel(context.Context, *operatorv1.GetLogLevelRequest, ...grpc.CallOption) (*operatorv1.LogLevel, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &operatorv1.LogLevel{Level: cmp.Or(l.level, "info"), Configured: "info"}, nil
}

// Asked is what was asked for, in order.
func (l *LogLevels) Asked() []*operatorv1.SetLogLevelRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.asked
}
