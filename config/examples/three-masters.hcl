# One of three masters with ZooKeeper: the same file on each, but for hostname. Any
# of them may be lost. Agents and the command line find the leader by
# zk://zk1:2181,zk2:2181,zk3:2181/mezzo. docs/high-availability.md has the rest;
# master.hcl shows more settings.

data_dir   = "/var/lib/mezzo"
plugin_dir = "/usr/lib/mezzo/plugins"

master {
  hostname = "m1.example.org"
  rpc      = "0.0.0.0:5061"
  http     = "0.0.0.0:5060"
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

registry "zookeeper" {} # in the same place

allocator "drf" {}
