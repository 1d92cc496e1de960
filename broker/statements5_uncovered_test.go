package broker_test

// notCovered5Connect are the statements of MQTT 5.0 in chapters 1 to 3.3 that have no test.
func notCovered5Connect() map[string]string { return map[string]string{} }
