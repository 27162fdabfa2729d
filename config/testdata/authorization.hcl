data_dir = "/d"

tls {
  ca   = "ca.pem"
  cert = "cert.pem"
  key  = "key.pem"
}

authorization {
  default = "allow"

  rule "platform" {
    principals = ["ops-*", "nobody"]
    actions    = ["*"]
  }
  rule "no root" {
    effect     = "deny"
    principals = ["*"]
    actions    = ["run_task", "run_command"]
    roles      = ["web", "web/*", "\\*"]
    users      = ["root"]
    owners     = ["self"]
  }
}
