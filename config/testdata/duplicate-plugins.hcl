data_dir = "data"
master {
  framework "mesos" {}
}
agent {
  framework "cron" {}
}
framework "mesos" {}
framework "cron" {}
isolator "cgroups" {}
isolator "cgroups" {}
