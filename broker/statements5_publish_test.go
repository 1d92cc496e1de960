package broker_test

func statements5Publish() []statement { return nil }
