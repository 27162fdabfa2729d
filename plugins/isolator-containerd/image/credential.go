package image

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// credential is how to log in at a registry. A user without a name has a token
// for its secret.
type credential struct{ user, secret string }

// dockerConfig is what a Docker config.json says of credentials, by registry.
type dockerConfig struct {
	known   map[string]credential
	helpers map[string]bool // registries whose credentials a helper program has
}

// parseDockerConfig never has the text, which is secret, in its errors.
func parseDockerConfig(text []byte) (*dockerConfig, error) {
	var file struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Username      string `json:"username"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal(text, &file); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) {
			return nil, fmt.Errorf("the Docker config is no JSON (at byte %d)", syntax.Offset)
		}
		return nil, errors.New("the Docker config is not of the form {\"auths\": {\"HOST\": {\"auth\": …}}}")
	}
	out := &dockerConfig{known: map[string]credential{}, helpers: map[string]bool{}}
	for key, a := range file.Auths {
		c := credential{a.Username, a.Password}
		if a.Auth != "" {
			plain, err := base64.StdEncoding.DecodeString(a.Auth)
			user, password, found := strings.Cut(strings.TrimRight(string(plain), "\x00"), ":")
			if err != nil || !found {
				return nil, fmt.Errorf("the Docker config's auth of %s is not USER:PASSWORD in base64", key)
			}
			c = credential{user, password}
		}
		if a.IdentityToken != "" {
			c = credential{"", a.IdentityToken}
		}
		if c.secret != "" {
			out.known[registryOf(key)] = c
		}
	}
	for key := range file.CredHelpers {
		out.helpers[registryOf(key)] = true
	}
	return out, nil
}

// registryOf is the host that a key of a Docker config means: those of old are
// URLs, and Docker Hub has several names.
func registryOf(key string) string {
	key = strings.TrimPrefix(strings.TrimPrefix(key, "https://"), "http://")
	key, _, _ = strings.Cut(key, "/")
	return canonicalHost(key)
}

func canonicalHost(h string) string {
	switch h = strings.ToLower(h); h {
	case "index.docker.io", "registry-1.docker.io":
		return "docker.io"
	}
	return h
}

// keyring finds credentials: those of the task come first, then the operator's.
type keyring struct {
	task, operator *dockerConfig
	blocks         map[string]credential
}

func (c *Config) keyring(task []byte) (*keyring, error) {
	k := &keyring{blocks: map[string]credential{}}
	for _, r := range c.Registries {
		if r.Username != "" {
			k.blocks[canonicalHost(r.Host)] = credential{r.Username, r.Password}
		}
	}
	var err error
	if len(task) > 0 {
		if k.task, err = parseDockerConfig(task); err != nil {
			return nil, fmt.Errorf("the task's credentials: %w", err)
		}
	}
	if c.DockerConfig != "" {
		text, err := os.ReadFile(c.DockerConfig)
		if err != nil {
			return nil, fmt.Errorf("the agent's docker_config: %w", err)
		}
		if k.operator, err = parseDockerConfig(text); err != nil {
			return nil, fmt.Errorf("the agent's docker_config: %w", err)
		}
	}
	return k, nil
}

// lookup has the form that containerd asks for; "" and "" is nobody.
func (k *keyring) lookup(h string) (string, string, error) {
	h = canonicalHost(h)
	if k.task != nil {
		if c, found := k.task.known[h]; found {
			return c.user, c.secret, nil
		}
	}
	if c, found := k.blocks[h]; found {
		return c.user, c.secret, nil
	}
	if k.operator != nil {
		if c, found := k.operator.known[h]; found {
			return c.user, c.secret, nil
		}
	}
	for _, d := range []*dockerConfig{k.task, k.operator} {
		if d != nil && d.helpers[h] {
			return "", "", fmt.Errorf("the credentials of %s are with a helper program, which is not run: write them into auths", h)
		}
	}
	return "", "", nil
}
