data_dir = "data"
role "b" {}
