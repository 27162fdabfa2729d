plugin "alocator" "drf" {
  checksum = "sha256:00"
}
plugin "isolator" "cgroups" {}
plugin "isolator" {}
