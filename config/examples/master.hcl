# A master of a highly available cluster: several of these, one ZooKeeper.
# docs/high-availability.md says what else there is to it.

data_dir   = "/var/lib/mezzo"
plugin_dir = "/usr/lib/mezzo/plugins"

master {
  rpc           = "0.0.0.0:5061" # agents, native frameworks, CLI (gRPC)
  http          = "0.0.0.0:5060" # UI, JSON, /metrics, /healthz
  offer_timeout = "5m"

  revocation {
    enabled   = true
    min_grace = "10s"
  }
}

tls {
  ca   = "/etc/mezzo/ca.pem"
  cert = "/etc/mezzo/master.pem"
  key  = "/etc/mezzo/master.key"
}

election "zookeeper" {
  servers         = ["zk1:2181", "zk2:2181", "zk3:2181"]
  path            = "/mezzo"
  session_timeout = "10s"
}

registry "zookeeper" {} # takes election's servers; default: bbolt in data_dir

role "ads" {
  weight    = 2
  guarantee = "cpus:8;mem:16384"
  limit     = "cpus:64;mem:131072"
}

allocator "drf" {
  # checksum = "sha256:…", or a mezzo.lock.hcl beside this file
  config {
    preempt {
      after        = "2m"
      grace_period = "30s"
    }
  }
}

framework "mesos" {
  config {
    listen = "0.0.0.0:5050"
    zk     = "zk://zk1:2181,zk2:2181,zk3:2181/mesos"

    tls {
      ca   = "/etc/mezzo/ca.pem"
      cert = "/etc/mezzo/master.pem"
      key  = "/etc/mezzo/master.key"
    }
  }
}
