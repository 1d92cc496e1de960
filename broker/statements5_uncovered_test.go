package broker_test

// notCovered5Connect says for the statements of MQTT 5.0 in chapters 1 to 3.3 that have no test why.
func notCovered5Connect() map[string]string {
	return map[string]string{
		"5.0 MQTT-3.2.2-4":  "outside: what a client does about Session Present is its own affair; to the server it looks like any end of a connection",
		"5.0 MQTT-3.2.2-5":  "outside: whether a client discards its state cannot be seen by the server",
		"5.0 MQTT-3.2.2-18": "outside: this server always announces a Topic Alias Maximum; above it see MQTT-3.2.2-17",
		"5.0 MQTT-3.2.2-20": "outside: this server sends no User Property in CONNACK",
		"5.0 MQTT-3.3.2-10": "outside: whether a client takes an alias cannot be seen by the server; our aliases are within its maximum, see MQTT-3.3.2-11",
		"5.0 MQTT-3.3.4-8":  "outside: whether a client holds back packets cannot be seen by the server",
	}
}
