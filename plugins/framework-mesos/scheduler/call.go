package scheduler

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/plugins/framework-mesos/convert"
	"github.com/mezzo-os/mezzo/plugins/framework-mesos/transport"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// call answers any call but SUBSCRIBE.
func (a *API) call(w http.ResponseWriter, r *http.Request, call *schedulerv1.Call) {
	a.convert.Upgrade(call)
	header := r.Header.Get(StreamHeader)
	if header != "" {
		call.StreamId = proto.String(nativeStream(header))
	}
	if parent := r.Header.Get("traceparent"); parent != "" {
		call.Traceparent = proto.String(parent)
	}
	ctx, cancel := context.WithTimeout(r.Context(), a.options.Patience)
	defer cancel()
	result, err := a.lines.Call(ctx, transport.PrincipalName(r), call)
	outcome := "unavailable"
	if err == nil {
		outcome = strings.ToLower(result.GetCode().String())
	}
	a.options.Calls.Inc(strings.ToLower(call.GetType().String()), outcome)
	switch {
	case err == nil:
	case r.Context().Err() != nil:
		return // nobody is there to be answered
	default:
		unavailable(err).Write(w)
		return
	}
	if failure := refused(call, result, header); failure != nil {
		failure.Write(w)
		return
	}
	if call.GetType() == schedulerv1.Call_UPDATE_FRAMEWORK {
		a.streams.update(call.GetFrameworkId().GetValue(), convert.FormOf(call.GetUpdateFramework().GetFrameworkInfo()))
		transport.Empty(w, http.StatusOK)
		return
	}
	transport.Empty(w, http.StatusAccepted)
}

// unavailable is the answer when the master gives none.
func unavailable(err error) *transport.Error {
	text := "The master does not answer: " + err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		text = "The master did not answer in time"
	}
	return transport.Failed(http.StatusServiceUnavailable, text)
}

// refused is the answer to a call that the master did not accept; nil: it did.
func refused(call *schedulerv1.Call, result *schedulerv1.CallResult, header string) *transport.Error {
	bad := func(text string) *transport.Error { return transport.Failed(http.StatusBadRequest, text) }
	switch result.GetCode() {
	case schedulerv1.CallResult_ACCEPTED:
		if call.GetType() == schedulerv1.Call_UNKNOWN {
			return transport.Failed(http.StatusNotImplemented, "")
		}
		return nil
	case schedulerv1.CallResult_UNKNOWN_FRAMEWORK:
		return bad("Framework cannot be found")
	case schedulerv1.CallResult_NOT_SUBSCRIBED:
		return transport.Failed(http.StatusForbidden, "Framework is not subscribed")
	case schedulerv1.CallResult_NO_STREAM:
		return bad("All non-subscribe calls should include the 'Mesos-Stream-Id' header")
	case schedulerv1.CallResult_SUPERSEDED:
		return bad(fmt.Sprintf("The stream ID '%s' included in this request didn't match the stream ID currently associated with framework ID %s",
			header, call.GetFrameworkId().GetValue()))
	case schedulerv1.CallResult_UNAUTHORIZED:
		return transport.Failed(http.StatusForbidden, result.GetMessage())
	case schedulerv1.CallResult_UNAVAILABLE:
		return transport.Failed(http.StatusServiceUnavailable, result.GetMessage())
	case schedulerv1.CallResult_INVALID, schedulerv1.CallResult_WRONG_PRINCIPAL:
		if call.GetType() == schedulerv1.Call_UNKNOWN {
			return transport.Failed(http.StatusNotImplemented, "")
		}
		return bad(result.GetMessage())
	}
	return transport.Failed(http.StatusInternalServerError, "The master gave an answer that is not known here: "+result.GetMessage())
}

// The native service names a subscription by 32 digits; clients see a UUID.

// clientStream is a stream id as clients see it.
func clientStream(native string) string {
	if len(native) != 32 {
		return native
	}
	return native[:8] + "-" + native[8:12] + "-" + native[12:16] + "-" + native[16:20] + "-" + native[20:]
}

// nativeStream undoes clientStream. What it cannot have made becomes an id that
// no subscription has.
func nativeStream(header string) string {
	native := strings.ReplaceAll(header, "-", "")
	if clientStream(native) != header || len(native) != 32 {
		return "unknown:" + header
	}
	return native
}
