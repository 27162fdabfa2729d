data_dir = "data"
tls {
  ca = "ca.pem"
}
