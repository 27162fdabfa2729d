data_dir = "data"
role "eng" {
  guarantee = "cpus:4"
  limit     = "cpus:8;mem:64"
}
role "eng/web" {
  guarantee = "cpus:5"
}
role "eng/batch" {
  guarantee = "cpus:4;mem:32"
}
role "eng/batch/night" {
  guarantee = "mem:48"
  limit     = "mem:100"
}
role "eng/batch/day" {
  guarantee = "mem:48"
}
role "ops" {
  limit = "cpus:4"
}
role "ops/x/y" {
  limit = "cpus:5;gpus:0"
}
