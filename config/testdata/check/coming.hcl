# What is read and not done yet is an error of a start, each with its place.
data_dir = "/d"

master {}

agent {
  masters = ["zk://z1:2181/mezzo"]
}

election "zookeeper" {
  servers = ["z1:2181"]
}

registry "zookeeper" {}
