# complaint : nothing fits
# complaint name: no such name
# complaint words.1: unknown word
# complaint words.7: one too many
# complaint labels.k: bad label
# complaint labels.z: label missing
# complaint preempt.grace: grace too short
# complaint preempt.after: unknown path
# complaint rule: too many rules
# complaint rule.1: bad rule
# complaint rule.1.name: bad rule name
# complaint rule.1.order: bad order
# complaint rule.0.order: order missing
# complaint rule.9.order: rule missing
# complaint limit: limit missing
# complaint mystery.deep: unknown setting
# warning count: count is high
data_dir = "data"
allocator "test" {
  config {
    name   = "x"
    count  = 3
    words  = ["a", "b"]
    labels = { k = "v" }
    preempt {
      grace = "10s"
    }
    rule "a" {}
    rule "b" {
      order = 2
    }
  }
}
