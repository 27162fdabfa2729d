package allocator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	allocatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/allocator/v1"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

// Decision reads a decision. It fails, and says why, when the decision names
// what is not known or its amounts do not make sense. ReasonOf says what the
// core answers then. Resources come without allocation info.
func (e *Encoder) Decision(d *allocatorv1.Decision) (Decision, error) {
	number := d.GetNumber()
	switch v := d.GetDecision().(type) {
	case *allocatorv1.Decision_Offer:
		o := &Offer{Number: number}
		var err error
		if o.Agent, o.Framework, err = e.parties(v.Offer.GetAgent(), v.Offer.GetFramework()); err != nil {
			return nil, fmt.Errorf("decision %d: %w", number, err)
		}
		var ok bool
		if o.Role, ok = e.roles.name(v.Offer.GetRole()); !ok {
			return nil, fmt.Errorf("decision %d: %w", number, &UnknownError{RefusedRole, "role", v.Offer.GetRole()})
		}
		if o.Resources, err = e.resources(v.Offer.GetQuantities()); err != nil {
			return nil, fmt.Errorf("decision %d: %w", number, err)
		}
		return o, nil
	case *allocatorv1.Decision_InverseOffer:
		agent, framework, err := e.parties(v.InverseOffer.GetAgent(), v.InverseOffer.GetFramework())
		if err != nil {
			return nil, fmt.Errorf("decision %d: %w", number, err)
		}
		return &InverseOffer{Number: number, Agent: agent, Framework: framework}, nil
	case *allocatorv1.Decision_Rescind:
		return &Rescind{Number: number, Offer: v.Rescind.GetOffer()}, nil
	case *allocatorv1.Decision_Revoke:
		out := &Revoke{Number: number, Task: v.Revoke.GetTask(), Reason: v.Revoke.GetReason(),
			Grace: time.Duration(min(v.Revoke.GetGraceMs(), maxMilliseconds)) * time.Millisecond}
		// One that is gone meanwhile is nobody.
		framework, known := e.frameworks.name(v.Revoke.GetFramework())
		if role, ok := e.roles.name(v.Revoke.GetRole()); known && ok {
			out.Framework, out.Role = framework, role
		}
		return out, nil
	}
	return nil, fmt.Errorf("decision %d: it says nothing that this contract knows", number)
}

const maxMilliseconds = uint64(1<<63-1) / uint64(time.Millisecond)

// UnknownError is a decision's mention of what the session does not have (any
// more).
type UnknownError struct {
	Reason RefusalReason
	What   string
	Number uint32
}

func (e *UnknownError) Error() string {
	return fmt.Sprintf("%s %d is not known in this session", e.What, e.Number)
}

// ReasonOf returns the reason with which a decision is refused that could not
// be read.
func ReasonOf(err error) RefusalReason {
	if unknown := (*UnknownError)(nil); errors.As(err, &unknown) {
		return unknown.Reason
	}
	return RefusedMalformed
}

func (e *Encoder) parties(agent, framework uint32) (agentID, frameworkID string, err error) {
	agentID, ok := e.agents.name(agent)
	if !ok {
		return "", "", &UnknownError{RefusedUnknownAgent, "agent", agent}
	}
	if frameworkID, ok = e.frameworks.name(framework); !ok {
		return "", "", &UnknownError{RefusedUnknownFramework, "framework", framework}
	}
	return agentID, frameworkID, nil
}

// resources unpacks quantities.
func (e *Encoder) resources(q *allocatorv1.Quantities) (resource.Resources, error) {
	key := binary.AppendUvarint(e.key[:0], uint64(len(q.GetKinds())))
	for _, k := range q.GetKinds() {
		key = binary.AppendUvarint(key, uint64(k))
	}
	for _, n := range q.GetAmounts() {
		key = binary.AppendVarint(key, n)
	}
	e.key = key
	if r, ok := e.unpacked[string(key)]; ok {
		return r, nil
	}
	r, err := e.unpack(q)
	if err != nil {
		return nil, err
	}
	if len(e.unpacked) >= cacheSize {
		clear(e.unpacked)
	}
	if len(key) <= 4096 {
		e.unpacked[string(key)] = r
	}
	return r, nil
}

// unpack checks everything, since quantities come from a plugin.
func (e *Encoder) unpack(q *allocatorv1.Quantities) (resource.Resources, error) {
	amounts := q.GetAmounts()
	list := make([]resource.Resource, 0, len(q.GetKinds()))
	for _, k := range q.GetKinds() {
		if k == 0 || int(k) >= len(e.byKind) {
			return nil, fmt.Errorf("quantities: kind %d was not defined", k)
		}
		r := e.byKind[k]
		rest, err := e.readAmounts(&r, amounts)
		if err != nil {
			return nil, fmt.Errorf("quantities: %s: %w", r.Kind.Name(), err)
		}
		amounts = rest
		list = append(list, r)
	}
	if len(amounts) > 0 {
		return nil, fmt.Errorf("quantities: %d amounts too many", len(amounts))
	}
	return resource.Of(list...), nil
}

func (e *Encoder) readAmounts(r *resource.Resource, amounts []int64) (rest []int64, err error) {
	if len(amounts) == 0 {
		return nil, fmt.Errorf("an amount is missing")
	}
	n, rest := amounts[0], amounts[1:]
	if n <= 0 {
		return nil, fmt.Errorf("the amount or count %d is not positive", n)
	}
	switch {
	case r.Kind.Atomic():
		size := int64(copySize(r))
		if n%size != 0 {
			return nil, fmt.Errorf("%d thousandths are no whole copies of %d", n, size)
		}
		r.Count = int(n / size)
		return rest, nil
	case r.Kind.Type() == resource.TypeRanges:
		if n > int64(len(rest)/2) {
			return nil, fmt.Errorf("%d ranges do not fit in %d amounts", n, len(rest))
		}
		list := make([]resource.Range, n)
		var end uint64
		for i := range list {
			begin := end + uint64(rest[2*i])
			end = begin + uint64(rest[2*i+1])
			if end < begin {
				return nil, fmt.Errorf("range %d ends before it begins", i)
			}
			list[i] = resource.Range{Begin: begin, End: end}
		}
		r.Ranges = resource.NewRanges(list...)
		return rest[2*n:], nil
	case r.Kind.Type() == resource.TypeSet:
		if n > int64(len(rest)) {
			return nil, fmt.Errorf("%d set items do not fit in %d amounts", n, len(rest))
		}
		items := make([]string, n)
		for i := range items {
			number := rest[i]
			if number <= 0 || number >= int64(len(e.symbols.names)) {
				return nil, fmt.Errorf("symbol %d was not defined", number)
			}
			items[i] = e.symbols.names[number]
		}
		r.Set = resource.NewSet(items...)
		return rest[n:], nil
	}
	if n > int64(resource.MaxScalar) {
		return nil, fmt.Errorf("%d thousandths are more than there can be", n)
	}
	r.Scalar = resource.Scalar(n)
	return rest, nil
}
