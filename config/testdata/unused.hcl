data_dir = "data"
master {}
isolator "cgroups" {}
