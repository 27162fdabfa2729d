data_dir = "data"
election "zookeeper" {
}
registry "zookeeper" {
  servers         = ["zk9:2181"]
  path            = "/registry"
  session_timeout = "20s"
}
