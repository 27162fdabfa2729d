data_dir = "/d"

telemetry {
  tracing {
    endpoint = "https://otel.example.org:4317"
    ca       = "tracing-no-pem.hcl"
  }
}
