# For `mezzo dev --config`: what differs from its defaults. It takes its data
# directory from --dir.

log_level = "debug"

master {
  offer_timeout = "30s"
}

agent {
  resources = "cpus:4;mem:4096;disk:10240;ports:[31000-31099]"
}

role "batch" {
  weight = 1
}

role "services" {
  weight = 3
}
