data_dir = "/d"

telemetry {
  tracing {
    endpoint = "http://otel.example.org:4317"
  }
}
