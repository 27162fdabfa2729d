package image

import (
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/platforms"

	"github.com/mezzo-os/mezzo/sdk/plugin"
)

// Config is what the operator says of images; it is part of the plugin's config
// block.
type Config struct {
	Registries   []Registry    `hcl:"registry,block" help:"How a registry is reached; the label is its host, and perhaps a port."`
	DockerConfig string        `hcl:"docker_config" help:"A Docker config.json with credentials for registries; an absolute path. It is read for each pull. Credential helpers are not run."`
	Proxy        string        `hcl:"proxy" secret:"true" help:"The HTTP proxy by which registries are reached, such as http://proxy.example:3128. By default none: the agent's environment is not looked at."`
	NoProxy      []string      `hcl:"no_proxy" help:"Registries that are reached without the proxy: hosts, domains such as .example.org, and networks such as 10.0.0.0/8."`
	User         string        `hcl:"image_user" default:"mesos" help:"Who a task runs as in an image when neither it nor its command names a user. mesos, as Mesos does: with type MESOS its framework's user, with type DOCKER the image's own. image: the image's own. task: the framework's, and a task with the parameter user is refused."`
	Platform     string        `hcl:"platform" help:"Which of an image's platforms is run, such as linux/arm64. By default this machine's."`
	Stall        time.Duration `hcl:"pull_stall_timeout" default:"1m" help:"How long a registry may send nothing before a pull fails."`
	KeepFor      time.Duration `hcl:"keep_images_for" default:"336h" help:"How long an image stays that no container uses; 0: until the disk is too full."`
	DiskHigh     int64         `hcl:"image_disk_high" default:"85" help:"How full, in percent, the disk that has the images may be before those unused longest are removed; 0: they are not."`
	Pinned       []string      `hcl:"pinned_images" help:"Images that are never removed, such as busybox:1.36."`
}

// Registry is how one registry is reached.
type Registry struct {
	Host      string   `hcl:"host,label"`
	Username  string   `hcl:"username" help:"Who to log in as."`
	Password  string   `hcl:"password" secret:"true" help:"The password or token; see env() and file()."`
	CA        string   `hcl:"ca" help:"Certificates to trust beside the system's, in PEM; an absolute path. By default the system's alone."`
	Insecure  bool     `hcl:"insecure" default:"false" help:"Whether any certificate is accepted."`
	PlainHTTP bool     `hcl:"plain_http" default:"false" help:"Whether the registry speaks HTTP without TLS."`
	Mirrors   []string `hcl:"mirrors" help:"Hosts to ask first, in order, for this registry's images: HOST[:PORT][/PREFIX]. What they need is said in a registry block of their own."`
}

var validHost = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$`)

func isHost(text string) bool {
	if name, port, err := net.SplitHostPort(text); err == nil {
		if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
			return false
		}
		if strings.HasPrefix(text, "[") {
			return net.ParseIP(name) != nil
		}
	}
	return validHost.MatchString(text)
}

// Validate finds what can never work, on any host.
func (r *Registry) Validate() (ds []plugin.Diagnostic) {
	bad := func(summary, path, detail string, args ...any) {
		ds = append(ds, plugin.Errorf(summary, path, "registry %s: "+detail, append([]any{r.Host}, args...)...))
	}
	if !isHost(r.Host) {
		bad("no registry", "", "want a host and perhaps a port, such as reg.example:5000.")
	}
	switch {
	case r.Username == "" && r.Password != "":
		bad("password without a user", "password", "username is missing.")
	case r.Username != "" && r.Password == "":
		bad("user without a password", "username", "password is missing.")
	}
	if r.CA != "" && !filepath.IsAbs(r.CA) {
		bad("relative path", "ca", "%q: want an absolute path.", r.CA)
	}
	if r.PlainHTTP && (r.CA != "" || r.Insecure) {
		bad("no effect", "plain_http", "without TLS there are no certificates for ca and insecure.")
	}
	for i, m := range r.Mirrors {
		h, prefix, _ := strings.Cut(m, "/")
		if !isHost(h) || strings.Contains(prefix, "..") || strings.ContainsAny(prefix, "?# \n") {
			bad("no mirror", "mirrors."+strconv.Itoa(i), "%q: want HOST[:PORT][/PREFIX], without a scheme.", m)
		}
	}
	return ds
}

// Validate finds what can never work, on any host.
func (c *Config) Validate() (ds []plugin.Diagnostic) {
	seen := map[string]bool{}
	for _, r := range c.Registries {
		if seen[r.Host] {
			ds = append(ds, plugin.Errorf("registry named twice", "registry", "%s has a block already.", r.Host))
		}
		seen[r.Host] = true
	}
	if c.DockerConfig != "" && !filepath.IsAbs(c.DockerConfig) {
		ds = append(ds, plugin.Errorf("relative path", "docker_config", "%q: want an absolute path.", c.DockerConfig))
	}
	if c.Proxy != "" {
		if u, err := url.Parse(c.Proxy); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			ds = append(ds, plugin.Errorf("no proxy", "proxy", "want an address such as http://proxy.example:3128.")) // it may have a password
		}
	} else if len(c.NoProxy) > 0 {
		ds = append(ds, plugin.Errorf("no effect", "no_proxy", "there is no proxy."))
	}
	if c.Platform != "" {
		if _, err := platforms.Parse(c.Platform); err != nil {
			ds = append(ds, plugin.Errorf("unknown platform", "platform", "%q: %v; want one such as linux/amd64.", c.Platform, err))
		}
	}
	if c.User != UserMesos && c.User != UserImage && c.User != UserTask {
		ds = append(ds, plugin.Errorf("unknown choice", "image_user", "%q: want %s, %s or %s.", c.User, UserMesos, UserImage, UserTask))
	}
	if c.Stall < time.Second {
		ds = append(ds, plugin.Errorf("too short", "pull_stall_timeout", "%v: want at least 1s.", c.Stall))
	}
	if c.KeepFor < 0 {
		ds = append(ds, plugin.Errorf("negative duration", "keep_images_for", "%v: want a duration, or 0.", c.KeepFor))
	}
	if c.DiskHigh < 0 || c.DiskHigh > 100 {
		ds = append(ds, plugin.Errorf("no percentage", "image_disk_high", "%d: want 0 to 100.", c.DiskHigh))
	}
	for i, text := range c.Pinned {
		if _, err := Parse(text); err != nil {
			ds = append(ds, plugin.Errorf("no image", "pinned_images."+strconv.Itoa(i), "%v.", err))
		}
	}
	return ds
}

// Check finds what cannot work on this host: files that are missing or
// malformed. What it says is no secret.
func (c *Config) Check() (ds []plugin.Diagnostic) {
	for _, r := range c.Registries {
		if _, err := r.tls(); err != nil {
			ds = append(ds, plugin.Errorf("certificates cannot be read", "registry", "registry %s: %v.", r.Host, err))
		}
	}
	if c.DockerConfig != "" {
		text, err := os.ReadFile(c.DockerConfig)
		if err == nil {
			_, err = parseDockerConfig(text)
		}
		if err != nil {
			ds = append(ds, plugin.Errorf("credentials cannot be read", "docker_config", "%v.", err))
		}
	}
	return ds
}
