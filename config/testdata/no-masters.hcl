data_dir = "data"
agent {
  masters = []
}
