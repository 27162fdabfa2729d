data_dir = "data"
isolator "cgroups" {}
framework "mesos" {
  checksum = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
}
