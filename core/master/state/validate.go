package state

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/resource"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
)

// Each check returns what is wrong, in words for the framework's author; empty
// when nothing is.

// checkID checks a task's or an executor's id: it becomes part of a path.
func checkID(id string) string {
	switch {
	case id == "":
		return "ID must not be empty"
	case len(id) > 255:
		return "ID must not be longer than 255 characters"
	case id == "." || id == "..":
		return fmt.Sprintf("'%s' is disallowed", id)
	case !utf8.ValidString(id):
		return "ID is not valid UTF-8"
	}
	if i := strings.IndexFunc(id, func(r rune) bool { return unicode.IsControl(r) || r == '/' || r == '\\' }); i >= 0 {
		return fmt.Sprintf("'%s' contains invalid characters", id)
	}
	return ""
}

// checkFramework checks a FrameworkInfo and returns it with the principal
// filled in.
func (m *Machine) checkFramework(info *mezzov1.FrameworkInfo, principal string) (*mezzov1.FrameworkInfo, string) {
	if info == nil {
		return nil, "'framework_info' is not set"
	}
	if info.Name == nil || info.User == nil {
		return nil, "'FrameworkInfo.name' and 'FrameworkInfo.user' must be set"
	}
	if size := proto.Size(info); size > maxInfo {
		return nil, fmt.Sprintf("'framework_info' has %d bytes, the most is %d", size, maxInfo)
	}
	if principal != "" && info.GetPrincipal() != principal {
		if info.Principal != nil {
			return nil, fmt.Sprintf("Framework principal '%s' does not match the authenticated principal '%s'", info.GetPrincipal(), principal)
		}
		info = proto.Clone(info).(*mezzov1.FrameworkInfo)
		info.Principal = proto.String(principal)
	}
	multi := slices.ContainsFunc(info.GetCapabilities(), func(c *mezzov1.FrameworkInfo_Capability) bool {
		return c.GetType() == mezzov1.FrameworkInfo_Capability_MULTI_ROLE
	})
	switch {
	case multi && info.Role != nil:
		return nil, "'FrameworkInfo.role' must not be set when the framework is MULTI_ROLE capable"
	case !multi && len(info.GetRoles()) > 0:
		return nil, "'FrameworkInfo.roles' must not be set when the framework is not MULTI_ROLE capable"
	}
	if twice := duplicates(info.GetRoles()); len(twice) > 0 {
		return nil, "'FrameworkInfo.roles' contains duplicate items: " + strings.Join(twice, ", ")
	}
	for _, role := range rolesOf(info) {
		if err := resource.ValidateRole(role); err != nil {
			return nil, "'FrameworkInfo.roles' contains invalid role: " + err.Error()
		}
	}
	if id := info.GetId().GetValue(); id != "" {
		if why := checkID(id); why != "" {
			return nil, "Framework ID: " + why
		}
	}
	if t := info.GetFailoverTimeout(); math.IsNaN(t) || math.Abs(t) > float64(math.MaxInt64)/1e9 {
		return nil, fmt.Sprintf("The framework failover_timeout (%v) is invalid", t)
	}
	return info, checkOfferFilters(info)
}

func duplicates(list []string) []string {
	seen, twice := map[string]bool{}, []string(nil)
	for _, s := range list {
		if seen[s] {
			twice = append(twice, s)
		}
		seen[s] = true
	}
	return twice
}

func checkOfferFilters(info *mezzov1.FrameworkInfo) string {
	for _, role := range sortedKeys(info.GetOfferFilters()) {
		for _, q := range info.GetOfferFilters()[role].GetMinAllocatableResources().GetQuantities() {
			if len(q.GetQuantities()) == 0 {
				return "Resource quantities must contain at least one quantity"
			}
			for _, name := range sortedKeys(q.GetQuantities()) {
				if v := q.GetQuantities()[name].GetValue(); math.IsNaN(v) || math.IsInf(v, 0) || v < 0 || v > resource.MaxScalar.Float() {
					return fmt.Sprintf("Invalid resource quantity for '%s': %v", name, v)
				}
			}
		}
	}
	return ""
}

// checkSubscription checks what comes beside the FrameworkInfo.
func checkSubscription(info *mezzov1.FrameworkInfo, suppressed []string, constraints *schedulerv1.OfferConstraints) string {
	roles := rolesOf(info)
	var foreign []string
	for _, r := range suppressed {
		if !slices.Contains(roles, r) {
			foreign = append(foreign, r)
		}
	}
	if len(foreign) > 0 {
		return "Suppressed roles { " + strings.Join(foreign, ", ") + " } are not contained in the set of roles"
	}
	for _, r := range sortedKeys(constraints.GetRoleConstraints()) {
		if !slices.Contains(roles, r) {
			return fmt.Sprintf("Offer constraints name the role '%s', to which the framework is not subscribed", r)
		}
		for _, g := range constraints.GetRoleConstraints()[r].GetGroups() {
			if len(g.GetAttributeConstraints()) == 0 {
				return fmt.Sprintf("Offer constraints for role '%s' have an empty group", r)
			}
			for _, c := range g.GetAttributeConstraints() {
				if c.GetSelector().GetSelector() == nil || c.GetPredicate().GetPredicate() == nil {
					return fmt.Sprintf("Offer constraints for role '%s' have a constraint without a selector or a predicate", r)
				}
				if why := checkRegex(c.GetPredicate()); why != "" {
					return fmt.Sprintf("Offer constraints for role '%s' are invalid: %s", r, why)
				}
			}
		}
	}
	return ""
}

// maxRegex bounds a regular expression: agents are matched against it for each
// offer.
const maxRegex = 1024

func checkRegex(p *schedulerv1.AttributeConstraint_Predicate) string {
	pattern := p.GetTextMatches().GetRegex()
	if m := p.GetTextNotMatches(); m != nil {
		pattern = m.GetRegex()
	}
	if len(pattern) > maxRegex {
		return fmt.Sprintf("a regular expression of %d bytes is longer than %d", len(pattern), maxRegex)
	}
	if _, err := regexp.Compile(pattern); err != nil {
		return err.Error()
	}
	return ""
}

func checkDuration(d *mezzov1.DurationInfo, what string) string {
	if d != nil && d.GetNanoseconds() < 0 {
		return what + " must be non-negative"
	}
	return ""
}

func checkSeconds(what string, list ...*float64) string {
	for _, s := range list {
		if s != nil && (math.IsNaN(*s) || *s < 0 || *s > math.MaxInt64/1e9) {
			return fmt.Sprintf("%s has a time of %v seconds; times must be non-negative", what, *s)
		}
	}
	return ""
}

func checkPort(what string, port uint32) string {
	if port > math.MaxUint16 {
		return fmt.Sprintf("%s has the port %d, which is larger than 65535", what, port)
	}
	return ""
}

func checkCheck(c *mezzov1.CheckInfo) string {
	if c == nil {
		return ""
	}
	const what = "CheckInfo"
	if why := checkSeconds(what, c.DelaySeconds, c.IntervalSeconds, c.TimeoutSeconds); why != "" {
		return why
	}
	switch c.GetType() {
	case mezzov1.CheckInfo_COMMAND:
		if c.GetCommand() == nil {
			return "Expecting 'check.command' to be set for COMMAND check"
		}
		return checkCommand(c.GetCommand().GetCommand())
	case mezzov1.CheckInfo_HTTP:
		if c.GetHttp() == nil {
			return "Expecting 'check.http' to be set for HTTP check"
		}
		if p := c.GetHttp().GetPath(); p != "" && p[0] != '/' {
			return fmt.Sprintf("The path '%s' of HTTP check must start with '/'", p)
		}
		return checkPort(what, c.GetHttp().GetPort())
	case mezzov1.CheckInfo_TCP:
		if c.GetTcp() == nil {
			return "Expecting 'check.tcp' to be set for TCP check"
		}
		return checkPort(what, c.GetTcp().GetPort())
	}
	return "CheckInfo must specify a type: COMMAND, HTTP or TCP"
}

// healthType is the type of a health check, inferred where a framework of the
// older kind leaves it out.
func healthType(h *mezzov1.HealthCheck) mezzov1.HealthCheck_Type {
	switch {
	case h.Type != nil:
		return h.GetType()
	case h.GetCommand() != nil && h.GetHttp() == nil:
		return mezzov1.HealthCheck_COMMAND
	case h.GetHttp() != nil && h.GetCommand() == nil:
		return mezzov1.HealthCheck_HTTP
	}
	return mezzov1.HealthCheck_UNKNOWN
}

func checkHealth(h *mezzov1.HealthCheck) string {
	if h == nil {
		return ""
	}
	const what = "HealthCheck"
	if why := checkSeconds(what, h.DelaySeconds, h.IntervalSeconds, h.TimeoutSeconds, h.GracePeriodSeconds); why != "" {
		return why
	}
	switch healthType(h) {
	case mezzov1.HealthCheck_COMMAND:
		if h.GetCommand() == nil {
			return "Expecting 'health_check.command' to be set for COMMAND health check"
		}
		return checkCommand(h.GetCommand())
	case mezzov1.HealthCheck_HTTP:
		http := h.GetHttp()
		if http == nil {
			return "Expecting 'health_check.http' to be set for HTTP health check"
		}
		if s := http.GetScheme(); s != "" && s != "http" && s != "https" {
			return fmt.Sprintf("Unsupported HTTP health check scheme: '%s'", s)
		}
		if p := http.GetPath(); p != "" && p[0] != '/' {
			return fmt.Sprintf("The path '%s' of HTTP health check must start with '/'", p)
		}
		return checkPort(what, http.GetPort())
	case mezzov1.HealthCheck_TCP:
		if h.GetTcp() == nil {
			return "Expecting 'health_check.tcp' to be set for TCP health check"
		}
		return checkPort(what, h.GetTcp().GetPort())
	}
	return "HealthCheck must specify a type: COMMAND, HTTP or TCP"
}

func checkCommand(c *mezzov1.CommandInfo) string {
	if c == nil {
		return "CommandInfo is not set"
	}
	for _, v := range c.GetEnvironment().GetVariables() {
		switch {
		case v.GetName() == "" || strings.ContainsAny(v.GetName(), "=\x00"):
			return fmt.Sprintf("Environment variable '%s' has an invalid name", v.GetName())
		case v.GetType() == mezzov1.Environment_Variable_SECRET:
			if v.GetSecret() == nil || v.Value != nil {
				return fmt.Sprintf("Environment variable '%s' of type 'SECRET' must have a secret and no value", v.GetName())
			}
		case v.GetType() == mezzov1.Environment_Variable_VALUE:
			if v.Value == nil || v.GetSecret() != nil {
				return fmt.Sprintf("Environment variable '%s' of type 'VALUE' must have a value and no secret", v.GetName())
			}
			if strings.ContainsRune(v.GetValue(), 0) {
				return fmt.Sprintf("Environment variable '%s' has a zero byte in its value", v.GetName())
			}
		default:
			return fmt.Sprintf("Environment variable '%s' has an unknown type", v.GetName())
		}
	}
	return ""
}

func checkContainer(c *mezzov1.ContainerInfo) string {
	if c == nil {
		return ""
	}
	for _, v := range c.GetVolumes() {
		sources := 0
		for _, set := range []bool{v.HostPath != nil, v.GetImage() != nil, v.GetSource() != nil} {
			if set {
				sources++
			}
		}
		if sources != 1 {
			return fmt.Sprintf("Only one of them should be set: host_path, image and source (volume '%s')", v.GetContainerPath())
		}
		if v.GetContainerPath() == "" {
			return "A volume has no container_path"
		}
	}
	if c.GetType() == mezzov1.ContainerInfo_DOCKER {
		if c.GetDocker() == nil {
			return "DockerInfo 'docker' is not set for DOCKER typed ContainerInfo"
		}
		for _, p := range c.GetDocker().GetParameters() {
			if p.GetKey() == "name" {
				return "Parameter in DockerInfo must not be 'name'"
			}
		}
	}
	return ""
}

func checkKillPolicy(k *mezzov1.KillPolicy) string {
	return checkDuration(k.GetGracePeriod(), "Task's 'kill_policy.grace_period'")
}

// checkResources checks a task's or an executor's resources and returns them
// without allocation info.
func checkResources(list []*mezzov1.Resource, role string) (resource.Resources, string) {
	res, err := resource.FromProto(list)
	if err != nil {
		return nil, "Invalid resources: " + err.Error()
	}
	revocable, volumes := map[string]bool{}, map[string]bool{}
	for i := range res {
		k := res[i].Kind
		if a := k.Allocation(); a != "" && a != role {
			return nil, fmt.Sprintf("Resources are allocated to role '%s', the offer is for role '%s'", a, role)
		}
		if k.Name() == "gpus" && res[i].Scalar%resource.Unit != 0 {
			return nil, "The 'gpus' resource must be an unsigned integer"
		}
		if was, seen := revocable[k.Name()]; seen && was != k.Revocable() {
			return nil, "Cannot use both revocable and non-revocable '" + k.Name() + "' at the same time"
		}
		revocable[k.Name()] = k.Revocable()
		if id := k.PersistenceID(); id != "" {
			if volumes[k.Role()+"\x00"+id] {
				return nil, "Persistence ID '" + id + "' is not unique"
			}
			volumes[k.Role()+"\x00"+id] = true
		}
	}
	return res.Unallocate(), ""
}

// checkLimits checks a task's resource limits against what it asks for.
func checkLimits(limits map[string]*mezzov1.Value_Scalar, res resource.Resources) string {
	for _, name := range sortedKeys(limits) {
		v := limits[name].GetValue()
		switch {
		case name != "cpus" && name != "mem":
			return fmt.Sprintf("Resource limits are only supported for 'cpus' and 'mem', not for '%s'", name)
		case math.IsNaN(v):
			return fmt.Sprintf("The limit of '%s' is not a number", name)
		case math.IsInf(v, 1):
		case v < res.Get(name).Float():
			return fmt.Sprintf("The limit of '%s' (%v) is less than the request (%s)", name, v, res.Get(name))
		}
	}
	return ""
}
