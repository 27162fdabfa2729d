# The master of this machine, reachable from it alone. docs/configuration.md
# says what else can be set, docs/high-availability.md how there are several.

data_dir   = "/var/lib/mezzo"
plugin_dir = "/usr/lib/mezzo/plugins"

master {
  rpc  = "127.0.0.1:5061" # agents, frameworks, CLI (gRPC)
  http = "127.0.0.1:5060" # web UI, JSON, /metrics, /healthz
}

allocator "drf" {}

framework "mesos" {} # the Mesos HTTP API, at port 5050
