# complaint password: too weak
# complaint after: too short
data_dir = "data"
allocator "test" {
  config {
    name     = "x"
    password = "hunter2"
  }
}
