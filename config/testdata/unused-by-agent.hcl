data_dir = "data"
agent {}
allocator "drf" {}
election "standalone" {}
registry "bbolt" {}
role "a" {}
