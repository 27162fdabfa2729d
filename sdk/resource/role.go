package resource

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// ValidateRole checks a role's name. "*" is valid. Any other name is a path of
// one or more parts with "/" between them; a part is not empty, not ".", ".."
// or "*", does not begin with "-", and holds no white space or backspace.
func ValidateRole(role string) error {
	switch {
	case role == "":
		return fmt.Errorf("role is empty; use \"*\" for the default role")
	case role == Unreserved:
		return nil
	case !utf8.ValidString(role):
		return fmt.Errorf("role %q is not valid UTF-8", role)
	case strings.HasPrefix(role, "/"):
		return fmt.Errorf("role %q begins with a slash; write %q", role, strings.TrimLeft(role, "/"))
	case strings.HasSuffix(role, "/"):
		return fmt.Errorf("role %q ends with a slash; write %q", role, strings.TrimRight(role, "/"))
	}
	for part := range strings.SplitSeq(role, "/") {
		switch {
		case part == "":
			return fmt.Errorf("role %q has an empty part between two slashes", role)
		case part == "." || part == ".." || part == Unreserved:
			return fmt.Errorf("role %q has the part %q, which is not allowed", role, part)
		case part[0] == '-':
			return fmt.Errorf("role %q has the part %q, which begins with a dash", role, part)
		}
	}
	if i := strings.IndexAny(role, " \t\n\v\f\r\b\x7f"); i >= 0 {
		return fmt.Errorf("role %q holds the character %q; white space and control characters are not allowed", role, role[i])
	}
	return nil
}

// IsAncestorOrSelf reports whether role is ancestor or below it: "eng" is an
// ancestor of "eng/web". The default role "*" is an ancestor of itself only.
func IsAncestorOrSelf(ancestor, role string) bool {
	return strings.HasPrefix(role, ancestor) && (len(role) == len(ancestor) || role[len(ancestor)] == '/')
}

// IsAncestor reports whether role is below ancestor.
func IsAncestor(ancestor, role string) bool {
	return len(role) > len(ancestor) && role[len(ancestor)] == '/' && strings.HasPrefix(role, ancestor)
}

// ParentRole returns the role above; "" for one at the top.
func ParentRole(role string) string {
	return role[:max(0, strings.LastIndexByte(role, '/'))]
}

// AllocatableTo reports whether resources of the kind may be offered to role:
// they are unreserved, or reserved to it or to an ancestor of it.
func (k Kind) AllocatableTo(role string) bool {
	return !k.IsReserved() || IsAncestorOrSelf(k.Role(), role)
}
