data_dir = "data"

allocator "drf" {}

allocator "priority" {}
