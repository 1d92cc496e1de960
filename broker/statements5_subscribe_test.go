package broker_test

func statements5Subscribe() []statement { return nil }
