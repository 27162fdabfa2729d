data_dir = "/d"

tls {
  ca   = "tls-no-pem.hcl"
  cert = "tls-no-pem.hcl"
  key  = "tls-no-pem.hcl"
}
