# An agent whose tasks all run in images, by containerd: those that ask for none
# get default_image. It needs root, containerd, runc, and for networks iptables and
# the CNI plugins. docs/containers.md and docs/images.md say what tasks can ask for.

data_dir = "/var/lib/mezzo"

agent {
  masters    = ["10.0.0.1:5061", "10.0.0.2:5061", "10.0.0.3:5061"] # or ["zk://zk1:2181,zk2:2181,zk3:2181/mezzo"]
  rpc        = "0.0.0.0:5063"
  http       = "0.0.0.0:5062"
  attributes = { rack = "r1" }
}

tls {
  ca   = "/etc/mezzo/ca.pem"
  cert = "/etc/mezzo/agent.pem"
  key  = "/etc/mezzo/agent.key"
}

isolator "containerd" {
  config {
    address       = "/run/containerd/containerd.sock"
    default       = true
    default_image = "docker.io/library/debian:bookworm-slim"

    registry "docker.io" {
      mirrors = ["mirror.example.org:5000"] # asked first
    }
    keep_images_for = "336h"
    bridge_subnet   = "10.90.0.0/16" # of containers in the network BRIDGE
  }
}
