data_dir = "data"
allocator "test" {
  config {
    nmae    = "x"
    enabled = "maybe"
    count   = 1.5
    ratio   = "much"
    after   = "soon"
    limit   = "64 megs"
    words   = "a"
    labels  = ["a"]
    preempt {
      grace = ["10s"]
      graze = "10s"
    }
    preempt {
      grace = "10s"
    }
    rule {
    }
    rule "a" {
      order = 1e30
    }
    zebra {
    }
  }
}
