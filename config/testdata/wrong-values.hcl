data_dir  = ""
log_level = "debgu"

master {
  rpc                 = "localhost"
  http                = "127.0.0.1:70000"
  offer_timeout       = "5 minutes"
  batch_interval      = "-1ms"
  agent_ping_interval = "0s"
  min_refuse          = 10
}

agent {
  masters    = ["m1", "http://m2:5061", "zk://z1:2181/mezzo"]
  rpc        = "a b:5063"
  resources  = "cpus:4;mem"
  attributes = { "a b" = "c", d = null }
  log_size   = "10 megs"
}
