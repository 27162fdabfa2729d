data_dir = "/d"

master {}

agent {
  masters = ["zk://mezzo@z1:2181/mezzo"]
}

election "zookeeper" {
  servers = ["z1:2181"]
  auth    = "nopassword"

  tls {
    ca   = "ca.pem"
    cert = "cert.pem"
  }
}

registry "zookeeper" {}
