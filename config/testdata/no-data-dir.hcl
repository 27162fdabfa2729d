master {}
