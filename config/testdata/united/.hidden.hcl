not = [read
