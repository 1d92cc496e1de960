package broker_test

func statements5Will() []statement { return nil }
func statements5Connack() []statement { return nil }
