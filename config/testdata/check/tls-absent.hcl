# Each file that is not there is named; a directory is none.
data_dir = "/d"

tls {
  ca   = "absent.pem"
  cert = "."
  key  = "/no/such/key.pem"
}
