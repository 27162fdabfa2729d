data_dir = "data"
election "zokeeper" {}
registry "etcd" {}
