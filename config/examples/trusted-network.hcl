# A master for a network where everybody is trusted: no TLS, said out loud.

data_dir = "/var/lib/mezzo"
insecure = true

master {
  rpc  = "0.0.0.0:5061"
  http = "0.0.0.0:5060"
}
