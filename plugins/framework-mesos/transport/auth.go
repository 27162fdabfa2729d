package transport

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/mezzo-os/mezzo/sdk/framework"
)

// Realm is what credentials count for.
type Realm int

// The realms. Open endpoints never ask.
const (
	Open Realm = iota
	ReadOnly
	ReadWrite
	Scheduler
	Executor
	ResourceProvider
)

// Name is how a realm is called in a challenge.
func (r Realm) Name(side Side) string {
	names := [...]string{"", "readonly", "readwrite", "scheduler", "executor", "resource-provider"}
	return "mesos-" + side.String() + "-" + names[r]
}

// Principal is who was recognised.
type Principal struct {
	// Value is its name. It may be empty when there are claims.
	Value string
	// Claims are what a token says of its bearer.
	Claims map[string]string
}

// Authenticator recognises clients. Safe for concurrent use, and quick: it is
// asked for each request.
type Authenticator interface {
	// Authenticate returns who sends the request, or nil and the challenge to
	// answer with (the value of WWW-Authenticate).
	Authenticate(r *http.Request, realm string) (*Principal, string)
}

// Basic recognises names and passwords (RFC 7617).
func Basic(passwords map[string]string) Authenticator {
	b := basic{}
	for name, password := range passwords {
		b[name] = sha256.Sum256([]byte(password))
	}
	return b
}

type basic map[string][sha256.Size]byte

func (b basic) Authenticate(r *http.Request, realm string) (*Principal, string) {
	name, password, ok := r.BasicAuth()
	want, known := b[name]
	got := sha256.Sum256([]byte(password))
	if same := subtle.ConstantTimeCompare(want[:], got[:]) == 1; ok && known && same {
		return &Principal{Value: name}, ""
	}
	return nil, `Basic realm="` + realm + `"`
}

// Bearer takes any bearer's token (RFC 6750) and keeps it in the principal: who
// has given it says whether it is good. The principal has no name.
func Bearer() Authenticator { return bearer{} }

type bearer struct{}

// tokenClaim is where a principal's token is kept.
const tokenClaim = "token"

func (bearer) Authenticate(r *http.Request, realm string) (*Principal, string) {
	kind, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(kind, "Bearer") || token == "" {
		return nil, `Bearer realm="` + realm + `"`
	}
	return &Principal{Claims: map[string]string{tokenClaim: token}}, ""
}

// TokenOf returns the token that Bearer has found; empty: none was asked for.
func TokenOf(r *http.Request) string {
	if p := PrincipalOf(r); p != nil {
		return p.Claims[tokenClaim]
	}
	return ""
}

// BadToken is the answer to a token that is not good.
func BadToken(r *http.Request, realm Realm, why string) *Error {
	why = strings.NewReplacer(`"`, "'", `\`, "/").Replace(why)
	challenge := `Bearer realm="` + realm.Name(serverOf(r).options.Side) + `", error="invalid_token", error_description="` + why + `"`
	return &Error{Code: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {challenge}}}
}

type principalKey struct{}

// PrincipalOf returns who sent the request; nil when nobody asked.
func PrincipalOf(r *http.Request) *Principal {
	p, _ := r.Context().Value(principalKey{}).(*Principal)
	return p
}

// PrincipalName is who sent the request; empty when nobody asked.
func PrincipalName(r *http.Request) string {
	if p := PrincipalOf(r); p != nil {
		return p.Value
	}
	return ""
}

// CallContext returns the context for calls to the core on the request's behalf:
// it ends with the request and says who asks.
func CallContext(r *http.Request) context.Context {
	return WithPrincipal(r.Context(), PrincipalOf(r))
}

// WithPrincipal returns a context for calls to the core on somebody's behalf.
func WithPrincipal(ctx context.Context, p *Principal) context.Context {
	if p == nil || p.Value == "" {
		return ctx
	}
	return framework.WithPrincipal(ctx, p.Value)
}

// MayView asks whether the client may see what the adapter has seen for itself;
// nil: it may.
func MayView(r *http.Request) *Error {
	s := serverOf(r)
	if s == nil || s.options.View == nil {
		return nil
	}
	switch err := s.options.View(CallContext(r)); status.Code(err) {
	case codes.OK, codes.Unimplemented: // a core of before has no rules
		return nil
	case codes.PermissionDenied:
		return Failed(http.StatusForbidden, status.Convert(err).Message())
	default:
		return Failed(http.StatusServiceUnavailable, "It is not known whether this may be seen: "+status.Convert(err).Message())
	}
}

// authenticate finds out who sends the request.
func (s *Server) authenticate(realm Realm, r *http.Request) (*http.Request, *Error) {
	list := s.options.Authenticators[realm]
	if realm == Open || len(list) == 0 {
		return certified(realm, r), nil
	}
	var challenges []string
	for _, a := range list {
		p, challenge := a.Authenticate(r, realm.Name(s.options.Side))
		if p == nil {
			challenges = append(challenges, challenge)
			continue
		}
		if p.Value == "" && realm != Executor && realm != ResourceProvider {
			return r, Failed(http.StatusForbidden, "The request's authenticated principal has claims, but no value string. Principals need one")
		}
		return r.WithContext(context.WithValue(r.Context(), principalKey{}, p)), nil
	}
	return r, &Error{Code: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {strings.Join(challenges, ",")}}}
}

// certified recognises a client by its certificate, where no credential is asked
// for. Executors have tokens.
func certified(realm Realm, r *http.Request) *http.Request {
	if realm == Open || realm == Executor || r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return r
	}
	p := &Principal{Value: framework.CertifiedName(r.TLS.VerifiedChains[0][0])}
	return r.WithContext(context.WithValue(r.Context(), principalKey{}, p))
}
