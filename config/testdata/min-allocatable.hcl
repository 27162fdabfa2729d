data_dir = "data"
master {
  min_allocatable = []
}
