# An agent of a highly available cluster. Take the isolator out that the machine
# has nothing for.

data_dir = "/var/lib/mezzo"

agent {
  masters    = ["zk://zk1:2181,zk2:2181,zk3:2181/mezzo"] # or ["host:5061"]
  rpc        = "0.0.0.0:5063"
  http       = "0.0.0.0:5062"
  resources  = "cpus:8;mem:16384;disk:102400;ports:[31000-32000]" # default: detected
  attributes = { rack = "r1", ssd = "true" }
}

tls {
  ca   = "/etc/mezzo/ca.pem"
  cert = "/etc/mezzo/agent.pem"
  key  = "/etc/mezzo/agent.key"
}

isolator "cgroups" {
  config {
    controllers = ["cpu", "memory", "pids"]
  }
}

isolator "containerd" {
  config {
    address = "/run/containerd/containerd.sock"
  }
}

framework "mesos" {
  config {
    listen = "0.0.0.0:5051"

    tls {
      ca   = "/etc/mezzo/ca.pem"
      cert = "/etc/mezzo/agent.pem"
      key  = "/etc/mezzo/agent.key"
    }
  }
}
