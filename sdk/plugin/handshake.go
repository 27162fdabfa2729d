package plugin

import goplugin "github.com/hashicorp/go-plugin"

// What host and plugin agree on before they speak gRPC. An author in another
// language needs these and go-plugin's own handshake, nothing else.
const (
	// CookieKey and CookieValue tell a plugin that a host started it. They are
	// no secret and no protection.
	CookieKey   = "MEZZO_PLUGIN_COOKIE"
	CookieValue = "f1c4b0d6e7a24f0c9f0b7a1c53d2e8a9"

	// EnvHostPipe holds the number of a file descriptor: the read end of a pipe
	// whose write end only the host has. Nothing is ever written; end of file
	// means that the host is gone, and the plugin exits.
	EnvHostPipe = "MEZZO_PLUGIN_HOST_FD"
	// EnvLogLevel is the least level worth logging: trace, debug, info, warn,
	// error or off.
	EnvLogLevel = "MEZZO_PLUGIN_LOG_LEVEL"
)

// Handshake is the go-plugin form of the cookie, for the host.
func Handshake() goplugin.HandshakeConfig {
	return goplugin.HandshakeConfig{MagicCookieKey: CookieKey, MagicCookieValue: CookieValue}
}
