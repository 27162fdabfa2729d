data_dir = "data"
