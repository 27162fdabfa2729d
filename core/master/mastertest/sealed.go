package mastertest

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // its codec
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Sealed is an event as it came over the wire.
type Sealed struct {
	data []byte
	// Count is how many offers are in it.
	Count int
}

// Offers decodes them.
func (s Sealed) Offers() ([]*mezzov1.Offer, error) {
	event, err := s.open()
	return event.GetOffers().GetOffers(), err
}

func (s Sealed) open() (*schedulerv1.Event, error) {
	event := new(schedulerv1.Event)
	if err := proto.Unmarshal(s.data, event); err != nil {
		return nil, err
	}
	return event, nil
}

// The numbers of the fields: of the offers in an event, and of one among them.
const offersField, offerField = 3, 1

// seal counts the offers of an event without decoding any.
func seal(data []byte) (Sealed, error) {
	s := Sealed{data: data}
	err := fields(data, func(number protowire.Number, value []byte) error {
		if number != offersField {
			return nil
		}
		return fields(value, func(number protowire.Number, _ []byte) error {
			if number == offerField {
				s.Count++
			}
			return nil
		})
	})
	return s, err
}

// fields calls f for every field of a message that has a length.
func fields(data []byte, f func(number protowire.Number, value []byte) error) error {
	for len(data) > 0 {
		number, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return fmt.Errorf("an event cannot be read: %w", protowire.ParseError(n))
		}
		data = data[n:]
		var value []byte
		if kind == protowire.BytesType {
			value, n = protowire.ConsumeBytes(data)
		} else {
			n = protowire.ConsumeFieldValue(number, kind, data)
		}
		if n < 0 {
			return fmt.Errorf("an event cannot be read: %w", protowire.ParseError(n))
		}
		if data = data[n:]; kind == protowire.BytesType {
			if err := f(number, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// events is a subscription whose events stay sealed.
type events struct{ stream grpc.ClientStream }

func openEvents(ctx context.Context, conn grpc.ClientConnInterface, call *schedulerv1.Call_Subscribe) (events, error) {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, schedulerv1.Scheduler_Subscribe_FullMethodName,
		grpc.ForceCodecV2(sealing{encoding.GetCodecV2("proto")}))
	if err != nil {
		return events{}, err
	}
	if err := stream.SendMsg(call); err != nil {
		return events{}, err
	}
	return events{stream}, stream.CloseSend()
}

func (e events) receive() (Sealed, error) {
	var s Sealed
	err := e.stream.RecvMsg(&s)
	return s, err
}

// sealing is a codec that leaves what comes as it is.
type sealing struct{ encoding.CodecV2 }

func (c sealing) Unmarshal(data mem.BufferSlice, v any) error {
	s, ok := v.(*Sealed)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	sealed, err := seal(data.Materialize())
	*s = sealed
	return err
}
