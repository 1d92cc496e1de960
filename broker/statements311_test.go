package broker_test

func statements311() []statement { return nil }

func notCovered311() map[string]string { return nil }
