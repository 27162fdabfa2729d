# For `mezzo dev --config`. In a cluster, the same blocks stand in the agents'
# configuration: without `path` where the binary lies in their plugin_dir.
# Isolators take part in a container in the order in which they are written here.

isolator "cgroups" {} # makes the containers' processes

isolator "plugin-name" {
  path = "bin/mezzo-isolator-plugin-name"

  config {
    variables = { SITE = "lisbon", RACK = "r7" }
  }
}
