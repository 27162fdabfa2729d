package plugintest

// isolatorRules are what an isolator must keep.
func isolatorRules() []rule { return nil }
