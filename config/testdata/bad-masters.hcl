data_dir = "data"
agent {
  masters = ["zk://z1:2181,z2/mezzo"]
}
framework "a" {}
isolator "A" {}
isolator "containerd" {
  checksum  = "md5:abc"
  log_level = "loud"
  config {}
  config {}
}
