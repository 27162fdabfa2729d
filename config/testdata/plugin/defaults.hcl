data_dir = "data"
allocator "test" {
  config {
    name  = "x"
    after = null
    preempt {}
  }
}
