data_dri = "data"

master {
  offer_timeot = "5m"
  colour       = "red"
  revokation {}
}

agnet {}

zebra "x" {}
