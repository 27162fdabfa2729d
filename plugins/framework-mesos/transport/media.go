package transport

import (
	"net/http"
	"strings"
)

// ContentType returns the media type of a request's body: JSON or Protobuf, or
// RecordIO if it is among extra. Parameters and the case of letters do not
// count.
func ContentType(r *http.Request, extra ...string) (string, *Error) {
	values := r.Header.Values("Content-Type")
	if len(values) == 0 {
		return "", Failed(http.StatusBadRequest, "Expecting 'Content-Type' to be present")
	}
	name := bareType(values[0])
	for _, known := range append([]string{JSON, Protobuf}, extra...) {
		if name == known {
			return known, nil
		}
	}
	return "", Failed(http.StatusUnsupportedMediaType, "Expecting 'Content-Type' of application/json or application/x-protobuf")
}

// bareType is a media type without its parameters.
func bareType(s string) string {
	s, _, _ = strings.Cut(s, ";")
	return strings.ToLower(strings.TrimSpace(s))
}

// Accept returns the first of the media types, in the server's order of
// preference, that a header of the request ("Accept", "Message-Accept") allows.
// A header that is absent allows all; one that is empty allows none.
func Accept(r *http.Request, header string, preferred ...string) (string, bool) {
	values, present := r.Header[http.CanonicalHeaderKey(header)]
	if !present {
		return preferred[0], true
	}
	list := strings.Join(values, ",")
	for _, media := range preferred {
		kind, _, _ := strings.Cut(media, "/")
		if accepted, named := quality(list, media, kind+"/*", "*/*"); named && accepted {
			return media, true
		}
	}
	return "", false
}

// NotAcceptable is the answer of an API that speaks JSON and Protobuf to a
// client that reads neither.
func NotAcceptable() *Error {
	return Failed(http.StatusNotAcceptable, "Expecting 'Accept' to allow 'application/x-protobuf' or 'application/json'")
}

// quality looks up the candidates in a list like that of Accept. The first
// candidate that the list names decides: its q is 0 or it is not.
func quality(list string, candidates ...string) (accepted, named bool) {
	for _, candidate := range candidates {
		for entry := range strings.SplitSeq(list, ",") {
			if bareType(entry) != candidate {
				continue
			}
			_, parameters, _ := strings.Cut(entry, ";")
			return !zeroQuality(parameters), true
		}
	}
	return false, false
}

func zeroQuality(parameters string) bool {
	for p := range strings.SplitSeq(parameters, ";") {
		name, value, _ := strings.Cut(strings.ToLower(strings.TrimSpace(p)), "=")
		if strings.TrimSpace(name) == "q" {
			value = strings.TrimSpace(value)
			return strings.HasPrefix(value, "0") && strings.Trim(value, "0.") == ""
		}
	}
	return false
}
