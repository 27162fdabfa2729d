package operator

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// What master and agent answer alike.

// Flags are the settings of the process.
func Flags(about transport.About) []*mezzov1.Flag {
	if about.Flags == nil {
		return nil
	}
	flags := about.Flags()
	var out []*mezzov1.Flag
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		out = append(out, &mezzov1.Flag{Name: proto.String(name), Value: proto.String(flags[name])})
	}
	return out
}

// VersionInfo is which build the process is.
func VersionInfo(about transport.About) *mezzov1.VersionInfo {
	out := &mezzov1.VersionInfo{Version: proto.String(about.Version), BuildUser: proto.String(about.BuildUser)}
	if about.Version == "" {
		out.Version = proto.String(transport.MesosVersion)
	}
	if !about.Built.IsZero() {
		out.BuildTime = proto.Float64(float64(about.Built.Unix()))
		out.BuildDate = proto.String(about.Built.UTC().Format("2006-01-02 15:04:05"))
	}
	return out
}

// MetricsContext bounds the time of a question for metrics as the client wants.
func MetricsContext(ctx context.Context, timeout *mezzov1.DurationInfo) (context.Context, context.CancelFunc, *transport.Error) {
	const most = time.Minute
	limit := most
	if timeout != nil {
		if timeout.GetNanoseconds() < 0 {
			return nil, nil, transport.Failed(http.StatusBadRequest, "Invalid timeout: it is negative")
		}
		limit = min(limit, time.Duration(timeout.GetNanoseconds()))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	return ctx, cancel, nil
}
