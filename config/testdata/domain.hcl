data_dir = "data"
master {
  min_allocatable = ["cpus:0", "disk:[1-2]"]
  domain {
    region = " "
  }
}
agent {
  domain {
    zone = "z"
    rack = "r1"
  }
}
role "heavy" { weight = 1000001 }
