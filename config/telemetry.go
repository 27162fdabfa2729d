package config

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

var telemetrySchema = schema(nil, "tracing")

var tracingSchema = schema(tracingAttributes)

// telemetry reads where traces go; nil: nowhere.
func (d *decoder) telemetry(block *hcl.Block) *Tracing {
	_, blocks := d.content(block.Body, telemetrySchema)
	if block = d.single(blocks, "tracing"); block == nil {
		return nil
	}
	s, _ := d.content(block.Body, tracingSchema)
	t := &Tracing{Protocol: "grpc", SampleRatio: 1, QueueSize: 2048, DefRange: block.DefRange}
	insecure := false
	rng, written := s.text("endpoint", &t.Endpoint)
	s.oneOf("protocol", &t.Protocol, "grpc", "http/protobuf")
	s.number("sample_ratio", &t.SampleRatio, func(n float64) bool { return n >= 0 && n <= 1 }, "from 0 to 1")
	s.count("queue_size", &t.QueueSize, 1)
	if most := 1 << 20; t.QueueSize > most {
		d.add(invalid(s.attrs["queue_size"].Expr.Range(), "Bad number", "queue_size is %d; it must be at most %d.", t.QueueSize, most))
	}
	s.path("ca", &t.CA)
	s.flag("insecure", &insecure)
	if !written {
		return t
	}
	there, err := collector(t.Endpoint)
	switch {
	case err != nil:
		d.add(invalid(rng, "Bad endpoint", "endpoint is %q: %s. Write the collector's address, such as \"http://127.0.0.1:4317\".", t.Endpoint, err))
	case there.Scheme == "http" && !insecure && !isLoopback(there.Host):
		d.add(invalid(rng, "Collector without TLS",
			"Traces tell who runs what, and would go to %s in plain text. Write https://, or a collector on 127.0.0.1, or insecure = true if the network is trusted.", there.Host))
	case there.Scheme == "http" && t.CA != "":
		d.add(invalid(s.attrs["ca"].Expr.Range(), "Unused ca", "The endpoint is http://, so nothing is verified. Write https://, or leave ca out."))
	}
	return t
}

// collector reads an endpoint.
func collector(text string) (*url.URL, error) {
	there, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("it is not a URL")
	case there.Scheme != "http" && there.Scheme != "https":
		return nil, errors.New("it begins neither with http:// nor with https://")
	case there.User != nil || there.RawQuery != "" || there.Fragment != "" || strings.Trim(there.Path, "/") != "":
		return nil, errors.New("it is more than a host and a port")
	}
	return there, checkAddress(there.Host, false)
}

// TLS is how the collector is spoken to; nil: in plain text. The file is read
// now.
func (t *Tracing) TLS() (*tls.Config, error) {
	switch {
	case !strings.HasPrefix(t.Endpoint, "https://"):
		return nil, nil
	case t.CA == "":
		return &tls.Config{MinVersion: tls.VersionTLS12}, nil
	}
	return trusting(t.CA)
}

// Text is the settings in one line, to be compared and shown.
func (t *Tracing) Text() string {
	if t == nil {
		return "off"
	}
	return fmt.Sprintf("%s by %s, %g of all offers, queue %d, ca %q", t.Endpoint, t.Protocol, t.SampleRatio, t.QueueSize, t.CA)
}

func (d *decoder) checkTracing(t *Tracing) {
	if t == nil {
		return
	}
	if _, err := t.TLS(); err != nil {
		d.add(invalid(t.DefRange, "Unusable TLS file", "%s.", strings.TrimPrefix(err.Error(), "tls: ")))
	}
}
