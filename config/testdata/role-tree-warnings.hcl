data_dir = "data"
role "eng" {
  guarantee = "cpus:4"
}
role "eng/web" {
  guarantee = "cpus:5"
}
role "ops" {
  limit = "cpus:4"
}
role "ops/x/y" {
  limit = "cpus:5;gpus:0"
}
role "heavy" {
  weight = 1000000
}
