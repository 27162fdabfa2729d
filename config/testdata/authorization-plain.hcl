data_dir = "/d"

master {}

authorization {}
