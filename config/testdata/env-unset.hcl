data_dir = "data"
master {
  hostname = env("MEZZO_TEST_UNSET")
}
agent {
  resources = file("missing.txt")
  hostname  = upper("x")
  work_dir  = work
}
