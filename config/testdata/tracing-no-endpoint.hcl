data_dir = "/d"

telemetry {
  tracing {}
  tracing {
    endpoint = "http://127.0.0.1:4317"
    ca       = "ca.pem"
  }
}
