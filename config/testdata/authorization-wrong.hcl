data_dir = "/d"

authorization {
  default = "permit"

  rule "misspelt" {
    principals = ["web"]
    actions    = ["run_task", "run_tasks", "fly"]
    role       = "web"
    effect     = "forbid"
  }
  rule "empty" {
  }
  rule "empty lists" {
    principals = []
    actions    = []
    roles      = []
  }
  rule "misspelt" {
    principals = ["web"]
    actions    = ["*"]
  }
  rule "patterns" {
    principals = ["web", "web-[0-9]", ""]
    actions    = ["run_task"]
    roles      = ["web/%", "a**"]
    users      = ["a\\b"]
  }
  rule "never" {
    principals = ["web"]
    actions    = ["run_task", "view_cluster", "update_quota"]
    roles      = ["web"]
    users      = ["www-data"]
  }
  rule "much" {
    principals = ["web"]
    actions    = ["run_task", "*"]
  }
  rule "" {
    principals = ["web"]
    actions    = "view_cluster"
  }
  rule {
    principals = ["web"]
  }
}

authorization {
}
