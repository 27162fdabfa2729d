role "a" {}
master {}
