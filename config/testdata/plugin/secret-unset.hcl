data_dir = "data"
allocator "test" {
  config {
    name     = "x"
    password = "hunter2${env("MEZZO_TEST_UNSET")}"
  }
}
