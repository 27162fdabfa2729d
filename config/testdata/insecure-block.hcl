data_dir = "data"
master {
  rpc      = "0.0.0.0:5061"
  insecure = true
}
agent {
  http = "0.0.0.0:5062"
}
