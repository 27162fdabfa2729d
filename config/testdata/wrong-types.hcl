data_dir = ["a"]
log_json = "perhaps"
insecure = {}

master {
  rpc                 = 5061
  offer_timeout       = ["5m"]
  agent_ping_timeouts = "many"
  max_completed_tasks = 1.5
  agent_ping_interval = null
}

agent {
  masters    = "m1:5061"
  attributes = ["a"]
  log_files  = 0
  log_size   = [1]
}

role "ads" {
  weight = "heavy"
}
