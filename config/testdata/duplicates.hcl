data_dir = "data"
data_dir = "other"
master {}
master {}
