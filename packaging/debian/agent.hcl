# The agent of this machine.

data_dir   = "/var/lib/mezzo-agent"
plugin_dir = "/usr/lib/mezzo/plugins"

agent {
  masters = ["127.0.0.1:5061"]
  rpc     = "127.0.0.1:5063"
  http    = "127.0.0.1:5062"
}

isolator "cgroups" {}

# Images, where containerd runs:
# isolator "containerd" {}

framework "mesos" {} # the Mesos HTTP API, at port 5051
