data_dir = "data"
master {
  rpc  = "0.0.0.0:5061"
  http = "127.0.0.1:5060"
}
agent {
  rpc  = "agent7:5063"
  http = ":5062"
}
