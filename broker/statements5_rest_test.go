package broker_test

func statements5Rest() []statement { return nil }

func notCovered5() map[string]string { return nil }
