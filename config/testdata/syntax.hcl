data_dir = "data"
master {
  rpc = "127.0.0.1:5061
}
