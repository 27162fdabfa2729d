data_dir = "/var/lib/mezzo"
