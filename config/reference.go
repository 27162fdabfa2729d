package config

// attribute is one that may stand in a block. The schema is made of it, and the
// table of the manual: docs/configuration.md is written by
// go test ./config -run TestManualTables -update.
type attribute struct {
	name     string
	required bool   // an error of the schema's; others that must be written are checked where they are read
	kind     string // its type, as the section Types of the manual has it
	standard string // its default, in Markdown
	meaning  string // in Markdown, without a full stop at the end
}

var topAttributes = []attribute{
	{name: "data_dir", kind: "path", standard: "none; must be written", meaning: "Where state is kept: the registry of a master; the identity, checkpoints and sandboxes of an agent; the plugins' own. A master and an agent may share one, two processes of a kind may not"},
	{name: "plugin_dir", kind: "path", standard: "`plugins` beside the `mezzo` program", meaning: "Where plugin binaries are, as `mezzo-KIND-NAME`"},
	{name: "log_level", kind: "text", standard: "`\"info\"`", meaning: "`trace`, `debug`, `info`, `warn` or `error`. Plugins log at this level too, unless their block says otherwise"},
	{name: "log_json", kind: "flag", standard: "`false`", meaning: "Log lines as JSON objects"},
	{name: "insecure", kind: "flag", standard: "`false`", meaning: "Allows listeners beyond loopback without `tls`, for both master and agent. Whoever reaches them can then run commands on the cluster"},
}

var masterAttributes = []attribute{
	{name: "rpc", kind: "address", standard: "`\"127.0.0.1:5061\"`", meaning: "Where agents, native frameworks and the command line connect (gRPC)"},
	{name: "http", kind: "address", standard: "`\"127.0.0.1:5060\"`", meaning: "Where the JSON API, `/metrics` and `/healthz` are served"},
	{name: "insecure", kind: "flag", standard: "`false`", meaning: "As at the top level, for the listeners of the master only"},
	{name: "hostname", kind: "text", standard: "the machine's name", meaning: "The name under which others reach this master"},
	{name: "offer_timeout", kind: "duration", standard: "`\"5m\"`", meaning: "An offer that a framework has not answered for so long is rescinded. `\"0s\"`: never"},
	{name: "batch_interval", kind: "duration", standard: "`\"5ms\"`", meaning: "How long freed resources wait for more before they are offered"},
	{name: "min_refuse", kind: "duration", standard: "`\"1s\"`", meaning: "How long an offer that a framework declined whole is kept from it, even when it asked for 0 s. Less only if nobody else wants it"},
	{name: "max_decisions_per_second", kind: "count, from 1", standard: "`1000000`", meaning: "The most that one allocator session may decide"},
	{name: "min_allocatable", kind: "list of resources", standard: "`[\"cpus:0.01\", \"mem:32\"]`", meaning: "The least that is worth an offer: any of these. A framework may ask for more in its roles"},
	{name: "filter_gpu_resources", kind: "flag", standard: "`true`", meaning: "Agents with GPUs are offered only to frameworks with the capability GPU_RESOURCES. Without it others get what is beside the GPUs"},
	{name: "agent_ping_interval", kind: "duration, above 0", standard: "`\"15s\"`", meaning: "The pause between pings to an agent"},
	{name: "agent_ping_timeouts", kind: "count, from 1", standard: "`5`", meaning: "How many unanswered pings make an agent unreachable: with the defaults, 75 s"},
	{name: "agent_reregister_timeout", kind: "duration, above 0", standard: "`\"10m\"`", meaning: "How long a new leader waits for the agents that it knows, before those missing become unreachable"},
	{name: "agent_removals_per_minute", kind: "count", standard: "`0`", meaning: "The most agents that become unreachable in a minute; 0: no limit. A brake for the day when the network, not the agents, is broken"},
	{name: "agent_forget_after", kind: "duration, from 1m", standard: "`\"336h\"`", meaning: "How long an agent that is unreachable, or gone, is remembered. One that comes back later is not taken by its old id"},
	{name: "max_away_agents", kind: "count, from 1", standard: "`102400`", meaning: "How many agents are remembered that are unreachable, and how many that are gone; beyond it the oldest are forgotten"},
	{name: "max_completed_frameworks", kind: "count", standard: "`50`", meaning: "How many frameworks that are over are kept for display"},
	{name: "max_completed_tasks", kind: "count", standard: "`1000`", meaning: "How many tasks that are over are kept, of each framework"},
	{name: "max_unreachable_tasks", kind: "count, from 1", standard: "`1000`", meaning: "How many tasks on unreachable agents are remembered, of each framework"},
}

var revocationAttributes = []attribute{
	{name: "enabled", kind: "flag", standard: "`false`", meaning: "Whether it may at all"},
	{name: "min_grace", kind: "duration", standard: "`\"10s\"`", meaning: "The least time that a task gets to end. An allocator may give more"},
	{name: "max_per_minute", kind: "count", standard: "`60`", meaning: "The most tasks that are revoked in any minute; `0`: no bound"},
}

var domainAttributes = []attribute{
	{name: "region", kind: "text", standard: "none; must be written", meaning: "The region, such as a city"},
	{name: "zone", kind: "text", standard: "none; must be written", meaning: "The zone in the region: what fails as a whole, such as a room"},
}

var agentAttributes = []attribute{
	{name: "masters", kind: "list of addresses", standard: "`[\"127.0.0.1:5061\"]`", meaning: "The `rpc` addresses of all masters; or, alone, `\"zk://host:port,…/path\"`, which finds the leader. `zks://` speaks TLS to ZooKeeper, with the files of `tls`; `zk://user:password@…` gives credentials"},
	{name: "rpc", kind: "address", standard: "`\"127.0.0.1:5063\"`", meaning: "Where executors and the command line connect (gRPC)"},
	{name: "http", kind: "address", standard: "`\"127.0.0.1:5062\"`", meaning: "Where the JSON API, `/metrics` and `/healthz` are served"},
	{name: "insecure", kind: "flag", standard: "`false`", meaning: "As at the top level, for the listeners of the agent only"},
	{name: "hostname", kind: "text", standard: "the machine's name", meaning: "What offers show, and the name under which others reach this agent"},
	{name: "work_dir", kind: "path", standard: "`work` in `data_dir`", meaning: "Where sandboxes are"},
	{name: "resources", kind: "resources", standard: "detected", meaning: "What the agent offers. `\"cpus(ads):2\"` reserves for a role"},
	{name: "attributes", kind: "map of texts", standard: "none", meaning: "What the agent says of itself, such as its rack. What reads as a number or as ranges (`\"[1-5]\"`) is one"},
	{name: "registration_backoff", kind: "duration, above 0", standard: "`\"1s\"`", meaning: "The first pause between attempts to register; doubles, with jitter, up to a minute"},
	{name: "ping_timeout", kind: "duration, above 0", standard: "`\"75s\"`", meaning: "How long the agent waits for a word from its master before it looks for a leader again"},
	{name: "reconfiguration_policy", kind: "`additive`, `equal` or `any`", standard: "`\"additive\"`", meaning: "How `resources` and `attributes` may differ from those that the agent had when it ran last. `additive`: there may be more of everything. `equal`: nothing may differ. `any`: everything may; tasks that do not fit any more are ended. What is detected may always differ"},
	{name: "executor_registration_timeout", kind: "duration, above 0", standard: "`\"1m\"`", meaning: "How long a custom executor has from its start until it subscribes; then it is killed"},
	{name: "executor_reregistration_timeout", kind: "duration, above 0", standard: "`\"10s\"`", meaning: "How long it has to subscribe again after the agent was started again"},
	{name: "executor_shutdown_grace", kind: "duration, above 0", standard: "`\"5s\"`", meaning: "How long it has to end when it is asked to, unless its framework says otherwise"},
	{name: "recovery_timeout", kind: "duration, above 0", standard: "`\"15m\"`", meaning: "How long executors try to reach an agent that is away before they end, and how long one may be disconnected from an agent that runs"},
	{name: "log_size", kind: "size, from 4 KiB", standard: "`\"10MiB\"`", meaning: "At which a task's `stdout` or `stderr` is rotated"},
	{name: "log_files", kind: "count, from 1", standard: "`5`", meaning: "How many files of each are kept, the current one included"},
	{name: "gc_delay", kind: "duration", standard: "`\"168h\"`", meaning: "For how long the sandbox of what has ended is kept on an empty disk: the fuller the disk, the shorter, by `gc_delay` × (1 − `gc_disk_headroom` − used)"},
	{name: "gc_disk_headroom", kind: "number, 0 to 1", standard: "`0.1`", meaning: "The part of the disk that old sandboxes are to leave free"},
	{name: "gc_interval", kind: "duration, from 1 s", standard: "`\"1m\"`", meaning: "How often old sandboxes are looked for"},
	{name: "disk_watch_interval", kind: "duration, from 1 s", standard: "`\"15s\"`", meaning: "How often sandboxes are measured"},
	{name: "enforce_disk", kind: "flag", standard: "`false`", meaning: "Whether a task ends whose sandbox is larger than its `disk`, as one that has used too much memory does"},
}

var fetcherAttributes = []attribute{
	{name: "cache_size", kind: "size", standard: "`\"2GiB\"`", meaning: "How much is kept of downloads with `cache` set, for later tasks of the same user; `0`: nothing"},
	{name: "max_size", kind: "size, above 0", standard: "`\"64GiB\"`", meaning: "How large one download may be, and how much one archive may unpack to"},
	{name: "stall_timeout", kind: "duration, above 0", standard: "`\"1m\"`", meaning: "After how long without a byte a download is given up"},
}

var secretsAttributes = []attribute{
	{name: "dir", kind: "path", standard: "none: no names are known", meaning: "A directory with a file for each secret, or a directory with a file for each key of one; the agent's alone to read"},
}

var tlsAttributes = []attribute{
	{name: "ca", required: true, kind: "path", standard: "none; must be written", meaning: "Certificates that others are verified against (PEM)"},
	{name: "cert", required: true, kind: "path", standard: "none; must be written", meaning: "This process's own certificate (PEM)"},
	{name: "key", required: true, kind: "path", standard: "none; must be written", meaning: "Its private key (PEM)"},
}

var authorizationAttributes = []attribute{
	{name: "default", kind: "`deny` or `allow`", standard: "`\"deny\"`", meaning: "What holds where no rule matches"},
}

var ruleAttributes = []attribute{
	{name: "effect", kind: "`allow` or `deny`", standard: "`\"allow\"`", meaning: "What the rule does when it matches"},
	{name: "principals", required: true, kind: "list of patterns", standard: "none; must be written", meaning: "Who asks. `nobody` is a caller without certificate and credential; the `*` of a rule that allows does not mean it"},
	{name: "actions", required: true, kind: "list of actions", standard: "none; must be written", meaning: "What is asked for; `\"*\"` is everything"},
	{name: "roles", kind: "list of patterns", standard: "not looked at", meaning: "In which role. What has none is not matched"},
	{name: "users", kind: "list of patterns", standard: "not looked at", meaning: "As which user of the operating system. What has none is not matched"},
	{name: "owners", kind: "list of patterns", standard: "not looked at", meaning: "Whose it is: the principal of the framework, or of who reserved or created. `self` is who asks"},
}

var tracingAttributes = []attribute{
	{name: "endpoint", required: true, kind: "text", standard: "none; must be written", meaning: "The collector: `http://host:port`, or `https://host:port` for TLS. Plain text goes to this machine only, unless `insecure` is written"},
	{name: "protocol", kind: "text", standard: "`\"grpc\"`", meaning: "`grpc` (OTLP over gRPC, port 4317 as a rule) or `http/protobuf` (OTLP over HTTP, port 4318)"},
	{name: "sample_ratio", kind: "number, from 0 to 1", standard: "`1`", meaning: "For a master: the part of all offers that are traced, with the tasks launched on them. An agent traces what the master does"},
	{name: "queue_size", kind: "count, from 1 to 1048576", standard: "`2048`", meaning: "How many spans wait to be sent; when there are more they are dropped, and nothing waits for them"},
	{name: "ca", kind: "path", standard: "the machine's own", meaning: "Certificates that the collector is verified against (PEM)"},
	{name: "insecure", kind: "flag", standard: "`false`", meaning: "Allows `http://` to another machine"},
}

var zookeeperAttributes = []attribute{
	{name: "servers", kind: "list of addresses", standard: "none; must be written", meaning: "The ZooKeeper servers"},
	{name: "path", kind: "text", standard: "`\"/mezzo\"`", meaning: "The node under which everything lies"},
	{name: "session_timeout", kind: "duration, from 1 s", standard: "`\"10s\"`", meaning: "A master that ZooKeeper has not heard of for so long no longer leads; another one does. ZooKeeper may give a shorter or longer one: twice to twenty times its `tickTime`"},
	{name: "auth", kind: "text", standard: "none", meaning: "`\"user:password\"`: ZooKeeper's digest authentication. Others may then read who leads, and nothing else. The same for every master, from the first start on"},
}

var bboltAttributes = []attribute{
	{name: "file", kind: "path", standard: "`registry.db` in `data_dir`", meaning: "The database"},
}

var registryZookeeperAttributes = []attribute{
	{name: "servers", kind: "list of addresses", standard: "the election's", meaning: "The ZooKeeper servers. Must be written without such an election"},
	{name: "path", kind: "text", standard: "the election's, or `\"/mezzo\"`", meaning: "The node under which everything lies"},
	{name: "session_timeout", kind: "duration, from 1 s", standard: "the election's, or `\"10s\"`", meaning: "As in `election`"},
	{name: "auth", kind: "text", standard: "the election's", meaning: "As in `election`. Others may then not read the registry"},
}

var roleAttributes = []attribute{
	{name: "weight", kind: "number, above 0, up to 1000000", standard: "`1`", meaning: "How much the role counts in fair sharing"},
	{name: "guarantee", kind: "resources", standard: "none", meaning: "What is kept for the role. Plain scalars only"},
	{name: "limit", kind: "resources", standard: "none", meaning: "What the role cannot go beyond. Plain scalars only; not below what is guaranteed to the role, and to the roles below it together. A resource that is not named is not limited, one of 0 is forbidden"},
}

var pluginAttributes = []attribute{
	{name: "path", kind: "path", standard: "`mezzo-KIND-NAME` in `plugin_dir`", meaning: "The binary, if it is elsewhere"},
	{name: "checksum", kind: "text", standard: "the lock file's, if it has one", meaning: "`\"sha256:\"` and 64 hexadecimal digits; for a plugin with companion programs followed by `,NAME=sha256:…` for each. A binary that does not match is not started"},
	{name: "log_level", kind: "text", standard: "the process's", meaning: "As at the top level"},
}

var lockAttributes = []attribute{
	{name: "path", kind: "text", standard: "none", meaning: "The binary whose checksum was taken. For people only"},
	{name: "checksum", required: true, kind: "text", standard: "none; must be written", meaning: "As in plugin blocks"},
}
