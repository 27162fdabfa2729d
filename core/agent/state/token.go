package state

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strings"

	executorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/executor"
)

// An executor proves who it is by a token that its process finds in its
// environment: a JSON web token, as executors of Mesos have, signed with a key of
// the agent's that is checkpointed and never leaves it. It names the executor's
// run, so that an earlier run's is of no use to a later one.

// tokenVariable is where an executor finds its token.
const tokenVariable = "MEZZO_EXECUTOR_TOKEN"

// claims are what a token says of its bearer, as Mesos names them.
type claims struct {
	Framework string `json:"fid"`
	Executor  string `json:"eid"`
	Container string `json:"cid"`
}

// tokenHeader begins every token. No other algorithm is ever taken.
var tokenHeader = base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`))

// newTokenKey is a key that nobody else can know.
func newTokenKey(seed [32]byte) []byte {
	// The seed is random and new, and what else comes of it does not tell it.
	mac := hmac.New(sha256.New, seed[:])
	mac.Write([]byte("the key of executors' tokens"))
	return mac.Sum(nil)
}

// token is an executor's. It is always the same for one run.
func (m *Machine) token(e *executor) string {
	payload, err := json.Marshal(claims{Framework: e.framework.id, Executor: e.id, Container: e.run})
	if err != nil {
		panic("agent state: claims that JSON cannot hold: " + err.Error())
	}
	signed := tokenHeader + "." + base64.RawURLEncoding.EncodeToString(payload)
	return signed + "." + m.sign(signed)
}

func (m *Machine) sign(text string) string {
	mac := hmac.New(sha256.New, m.tokenKey)
	mac.Write([]byte(text))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// bearer is who a token was given to; nil: it is none that this agent gave.
func (m *Machine) bearer(token string) *claims {
	at := strings.LastIndexByte(token, '.')
	if at < 0 || len(m.tokenKey) == 0 || !hmac.Equal([]byte(token[at+1:]), []byte(m.sign(token[:at]))) {
		return nil
	}
	header, payload, _ := strings.Cut(token[:at], ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	c := &claims{}
	if header != tokenHeader || err != nil || json.Unmarshal(text, c) != nil {
		return nil
	}
	return c
}

// denial says why a call's token does not do; UNKNOWN: it does. adapter is what
// the call came by: an adapter asks for tokens where its operator wants that, and
// then passes them on. The agent's own service always asks, but executors that
// were launched before there were tokens; and who has come by it is not to be
// replaced by somebody who comes by an adapter that does not ask.
func (m *Machine) denial(e *executor, call *executorv1.Call, adapter string) (executorv1.CallResult_Code, string) {
	p := e.program
	switch c := m.bearer(call.GetToken()); {
	case call.Token == nil && (!p.token || adapter != "" && (!p.known || p.adapter != "")):
		return executorv1.CallResult_UNKNOWN, ""
	case call.Token == nil:
		return executorv1.CallResult_UNAUTHENTICATED, "Expecting the executor's token, which its environment has as " + tokenVariable
	case c == nil:
		return executorv1.CallResult_UNAUTHENTICATED, "The token is none that this agent has given"
	case *c != claims{Framework: e.framework.id, Executor: e.id, Container: e.run}:
		return executorv1.CallResult_UNAUTHORIZED, "The token's claims do not match the framework ID, executor ID and container ID of the executor"
	}
	return executorv1.CallResult_UNKNOWN, ""
}
