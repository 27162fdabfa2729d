data_dir = "other"
master {}
allocator "drf" {}
