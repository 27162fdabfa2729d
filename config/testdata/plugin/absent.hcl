# complaint name: no such name
data_dir = "data"
