# TLS to ZooKeeper needs files that are there.
data_dir = "/d"

master {}

agent {
  masters = ["zks://z1:2181/mezzo"]
}

election "zookeeper" {
  servers = ["z1:2181"]

  tls {
    ca = "absent.pem"
  }
}

registry "zookeeper" {}
