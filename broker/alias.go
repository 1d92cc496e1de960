package broker

import "strings"

// aliases are the topic aliases of one connection towards its client (MQTT 5 section 3.3.2.3.4). They are chosen when bytes
// are appended to the output and die with the connection; queues and windows keep full topics. The first topics get them:
// a client that is sent few topics profits, one that is sent many loses nothing.
type aliases struct {
	byTopic map[string]uint16
	max     int
}

// use returns the alias of a topic and whether the client knows it already; 0: there is none.
func (a *aliases) use(topic string) (alias uint16, known bool) {
	if n, ok := a.byTopic[topic]; ok {
		return n, true
	}
	if len(a.byTopic) >= a.max {
		return 0, false
	}
	if a.byTopic == nil {
		a.byTopic = make(map[string]uint16)
	}
	n := uint16(len(a.byTopic) + 1)
	a.byTopic[strings.Clone(topic)] = n
	return n, false
}

// forget takes back the alias that use has just given to a topic that is then not sent; topic is empty where the client
// knew it.
func (a *aliases) forget(topic string) {
	if a != nil && topic != "" {
		delete(a.byTopic, topic)
	}
}
