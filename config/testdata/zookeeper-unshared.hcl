data_dir = "data"
election "zookeeper" {
  servers = ["zk1:2181"]
}
