# For `mezzo dev --config`. In a cluster, the same block stands in the masters'
# configuration: without `path` where the binary lies in their plugin_dir.

allocator "plugin-name" {
  path = "bin/mezzo-allocator-plugin-name"

  config {
    resource = "cpus"

    framework "billing" {
      weight = 2
    }
  }
}
