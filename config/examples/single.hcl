# One machine: a master and an agent side by side, reachable from it alone.
# Run `mezzo master` and `mezzo agent` with this same file, as root: tasks are
# then limited by cgroups, and may run as any user.

data_dir = "/var/lib/mezzo"

master {
  rpc  = "127.0.0.1:5061" # agents, frameworks, CLI (gRPC)
  http = "127.0.0.1:5060" # JSON, /metrics, /healthz
}

agent {
  masters = ["127.0.0.1:5061"]
  rpc     = "127.0.0.1:5063"
  http    = "127.0.0.1:5062"
}

allocator "drf" {}

isolator "cgroups" {}

# The Mesos HTTP APIs, for unmodified frameworks and tools: at port 5050 of the
# master and 5051 of the agent.
# framework "mesos" {}
