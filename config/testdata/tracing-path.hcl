data_dir = "/d"

telemetry {
  tracing {
    endpoint = "http://127.0.0.1:4318/v1/traces"
  }
}
