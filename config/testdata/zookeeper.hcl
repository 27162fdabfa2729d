data_dir = "data"
election "zookeeper" {
  servers         = ["zk1:2181", "zk2"]
  path            = "mezzo"
  session_timeout = "10ms"
}
registry "zookeeper" {
  path = "/a//b"
}
