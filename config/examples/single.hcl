# One machine: a master and an agent side by side, reachable from it alone.
# Run `mezzo master` and `mezzo agent` with this same file.

data_dir = "/var/lib/mezzo"

master {
  framework "mesos" {
    config {
      listen = "127.0.0.1:5050"
    }
  }
}

agent {
  masters = ["127.0.0.1:5061"]

  framework "mesos" {
    config {
      listen = "127.0.0.1:5051"
    }
  }
}

allocator "drf" {}

isolator "cgroups" {}
