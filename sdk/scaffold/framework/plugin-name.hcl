# For `mezzo dev --config`. In a cluster, the same block stands in the masters'
# configuration: without `path` where the binary lies in their plugin_dir.

master {
  framework "plugin-name" {
    path = "bin/mezzo-framework-plugin-name"

    config {
      listen    = "127.0.0.1:0"
      resources = "cpus:0.1;mem:32"
    }
  }
}
