data_dir = "/d"

agent {
  masters = ["m1:5061", "m2:5061"]
}

master {
}

election "standalone" {}
registry "bbolt" {}
