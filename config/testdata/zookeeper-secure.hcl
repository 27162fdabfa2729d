data_dir = "/d"

master {}

election "zookeeper" {
  servers = ["z1:2181", "z2:2181"]
  auth    = "mezzo:a:secret"

  tls {
    ca   = "ca.pem"
    cert = "cert.pem"
    key  = "key.pem"
  }
}

registry "zookeeper" {
  path = "/other"
}
