package bench

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// fakeBroker forwards QoS 0 messages and misbehaves as fault says: it returns what to send for the n-th message of a topic.
type fakeBroker struct {
	fault func(n int, m wire.Packet) []wire.Packet

	mu   sync.Mutex
	subs map[string][]net.Conn
	seen map[string]int
}

// start serves on a loopback port until the test ends.
func (b *fakeBroker) start(t *testing.T) (url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.subs, b.seen = make(map[string][]net.Conn), make(map[string]int)
	var wg sync.WaitGroup
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer nc.Close(); b.serve(nc) })
		}
	})
	return "mqtt://" + ln.Addr().String()
}

func (b *fakeBroker) serve(nc net.Conn) {
	r := bufio.NewReader(nc)
	v := wire.V311
	for {
		header, body, err := wire.ReadFrame(r, 0)
		if err != nil {
			return
		}
		p, err := wire.Decode(v, header, body)
		if err != nil {
			return
		}
		b.mu.Lock()
		switch p.Type {
		case wire.CONNECT:
			v = p.Connect.Version
			nc.Write(wire.Connack{}.Append(nil, v))
		case wire.SUBSCRIBE:
			codes := make([]wire.Code, len(p.Filters))
			for i, f := range p.Filters {
				b.subs[f.Filter] = append(b.subs[f.Filter], nc)
				codes[i] = wire.Code(f.QoS)
			}
			nc.Write(wire.Suback{ID: p.ID, Codes: codes}.Append(nil, v))
		case wire.PINGREQ:
			nc.Write(wire.Ping{Response: true}.Append(nil))
		case wire.PUBLISH:
			out := []wire.Packet{p}
			if b.fault != nil {
				out = b.fault(b.seen[p.Topic], p)
			}
			b.seen[p.Topic]++
			wild := p.Topic[:strings.LastIndexByte(p.Topic, '/')] + "/+"
			for _, to := range append(b.subs[p.Topic][:len(b.subs[p.Topic]):len(b.subs[p.Topic])], b.subs[wild]...) {
				for _, m := range out {
					to.Write(wire.Publish{Topic: m.Topic, Payload: m.Payload, QoS: 0}.Append(nil, v))
				}
			}
		}
		b.mu.Unlock()
	}
}
