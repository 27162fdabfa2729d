data_dir   = "data"
plugin_dir = "/opt/plugins"
log_level  = "debug"
log_json   = true
insecure   = true

telemetry {
  tracing {
    endpoint     = "http://otel.example.org:4318"
    protocol     = "http/protobuf"
    sample_ratio = 0.25
    queue_size   = 16
    insecure     = true
  }
}

master {
  rpc                       = "0.0.0.0:0"
  http                      = "[::]:8080"
  hostname                  = "m1.example.org"
  offer_timeout             = "0s"
  batch_interval            = "1ms"
  min_refuse                = "2s"
  max_decisions_per_second  = 1000
  min_allocatable           = ["cpus:0.1;mem:64", "gpus:1"]
  filter_gpu_resources      = false
  agent_ping_interval       = "1s"
  agent_ping_timeouts       = 3
  agent_reregister_timeout  = "1m"
  agent_removals_per_minute = 10
  max_completed_frameworks  = 1
  max_completed_tasks       = 2
  revocation {
    enabled        = true
    min_grace      = "5s"
    max_per_minute = 7
  }
  domain {
    region = "eu"
    zone   = "eu-1"
  }
  framework "mesos" {
    config { listen = "127.0.0.1:5050" }
  }
}

agent {
  masters              = ["m1:5061", "[::1]:5061"]
  rpc                  = ":5063"
  http                 = "0.0.0.0:5062"
  hostname             = env("MEZZO_TEST_HOST")
  work_dir             = "sandboxes"
  resources            = file("resources.txt")
  attributes           = { rack = "r1", zone = "${env("MEZZO_TEST_HOST")}-a", count = 3 }
  registration_backoff = "2s"
  ping_timeout         = "30s"
  log_size             = "1MiB"

  reconfiguration_policy          = "equal"
  executor_registration_timeout   = "2m"
  executor_reregistration_timeout = "3s"
  executor_shutdown_grace         = "4s"
  recovery_timeout                = "1h"

  log_files            = 2
  domain {
    region = "us"
    zone   = "us-2"
  }
  framework "mesos" {
    config { listen = "127.0.0.1:5051" }
  }
}

tls {
  ca   = "ca.pem"
  cert = "/etc/cert.pem"
  key  = "key.pem"
}

election "standalone" {}
registry "bbolt" { file = "/var/lib/registry.db" }

role "a" {}
role "a/b" {
  weight    = 0.5
  guarantee = "cpus:1.5; mem:10"
  limit     = "gpus:0; mem:10"
}

allocator "priority" {
  path      = "bin/allocator"
  log_level = "trace"
  checksum  = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
}

isolator "containerd" {}
isolator "cgroups" {}
framework "cron" {}
