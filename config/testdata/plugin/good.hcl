data_dir = "data"
allocator "test" {
  config {
    name     = "x${env("MEZZO_TEST_HOST")}"
    enabled  = true
    count    = 9007199254740993
    ratio    = 0.25
    after    = "1m30s"
    limit    = "64MiB"
    words    = ["a", "b"]
    labels   = { k = "v" }
    password = env("MEZZO_TEST_HOST")
    preempt {
      grace = "10s"
    }
    rule "first" {
      order = 1
    }
    rule "second" {}
  }
}
