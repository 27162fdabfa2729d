package holder

import (
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ValidID is a container id that can name a directory and a cgroup.
func ValidID(id string) error {
	if id == "" || len(id) > 200 || strings.HasPrefix(id, ".") || strings.HasPrefix(id, "cgroup.") {
		return invalidID(id)
	}
	for _, c := range id {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("._-:", c)) {
			return invalidID(id)
		}
	}
	return nil
}

func invalidID(id string) error {
	return status.Errorf(codes.InvalidArgument, "container id %q: want letters, digits, dots, dashes, colons and underscores, not beginning with a dot", id)
}

// Subject puts the container before the message of an error and keeps its code.
func Subject(id string, err error) error {
	if err == nil {
		return nil
	}
	code := codes.Internal
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		code = s.GRPCStatus().Code()
	}
	return status.Errorf(code, "container %s: %s", id, Message(err))
}

// Message is the text of an error without its code.
func Message(err error) string {
	var s interface{ GRPCStatus() *status.Status }
	if errors.As(err, &s) {
		return s.GRPCStatus().Message()
	}
	return err.Error()
}
