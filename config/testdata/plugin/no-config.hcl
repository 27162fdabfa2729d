data_dir = "data"
allocator "test" {
}
