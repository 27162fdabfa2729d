data_dir = "data"
role "-ads" {}
role "a//b" {}
role "web" { weight = 0 }
role "web" {
  guarantee = "cpus:4;mem:10"
  limit     = "cpus:2"
}
role "x" {
  guarantee = "ports:[1-2]"
  limit     = "cpus(ads):2"
}
role "y" {
  guarantee = "cpus:four"
  limit     = "cpus:1;cpus:2"
}
role "z" {
  limit = "[]"
}
