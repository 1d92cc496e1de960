package broker_test

func statements5Connect() []statement { return nil }
