data_dir = "/d"

telemetry {
  tracing {
    endpoint     = "otel.example.org:4317"
    protocol     = "http"
    sample_ratio = 1.5
    queue_size   = 0
  }
}
