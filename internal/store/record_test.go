package store

import (
	"bytes"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/isthmus-iot/isthmus/bridge"
)

// full has everything that a message can have.
var full = &bridge.Message{
	Topic:           "plant/7/temperature",
	Payload:         []byte("21.5"),
	QoS:             2,
	Retain:          true,
	PayloadFormat:   bridge.FormatUTF8,
	ContentType:     "text/plain",
	ResponseTopic:   "plant/7/reply",
	CorrelationData: []byte{0, 1, 2},
	UserProperties:  []bridge.UserProperty{{Name: "a", Value: "b"}, {Name: "a", Value: ""}, {}},
	Expires:         math.MaxInt64,
	Time:            -1,
	Origin:          bridge.Origin{Endpoint: "mqtt", Client: "sensor", Node: "north", Hops: 3},
}

func TestMessagesSurviveTheirRecord(t *testing.T) {
	for name, m := range map[string]*bridge.Message{
		"full":                   full,
		"least":                  {Topic: "t"},
		"empty":                  {},
		"empty correlation data": {Topic: "t", CorrelationData: []byte{}},
		"long":                   {Topic: "t", Payload: bytes.Repeat([]byte{7}, 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			b := appendMessage([]byte("before"), m)[6:]
			if len(b) != messageSize(m) {
				t.Errorf("%d bytes, messageSize says %d", len(b), messageSize(m))
			}
			got, err := decodeMessage(b)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(m, got, sameMessage); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if (got.CorrelationData == nil) != (m.CorrelationData == nil) {
				t.Error("correlation data: nil is not empty")
			}
			for i := range min(len(b), 200) {
				if _, err := decodeMessage(b[:i]); err == nil {
					t.Fatalf("%d of %d bytes are decoded", i, len(b))
				}
			}
			if _, err := decodeMessage(append(b, 0)); err == nil {
				t.Error("a byte too many is decoded")
			}
		})
	}
}

func TestEncodingAllocatesNothingAndDecodingLittle(t *testing.T) {
	m := *full
	m.Borrowed = true
	buf := make([]byte, 0, 1024)
	if n := testing.AllocsPerRun(100, func() { buf = appendMessage(buf[:0], &m) }); n != 0 {
		t.Errorf("%v allocations to encode", n)
	}
	if n := testing.AllocsPerRun(100, func() { decodeMessage(buf) }); n > 4 {
		t.Errorf("%v allocations to decode", n)
	}
	k := bridge.Kept{Position: 1, Message: &m, Identifiers: []uint32{1, 2}, Shared: "$share/a/b", PacketID: 1}
	if n := testing.AllocsPerRun(100, func() { buf = appendEntry(buf[:0], &k, true) }); n != 0 {
		t.Errorf("%v allocations to encode an entry", n)
	}
	if n := testing.AllocsPerRun(100, func() { readEntry(buf) }); n != 0 {
		t.Errorf("%v allocations to look at an entry", n)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{messageVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 't'})
	f.Add(appendMessage(nil, full))
	f.Add(appendMessage(nil, &bridge.Message{Topic: "t", CorrelationData: []byte{}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMessage(b)
		if err != nil {
			return
		}
		if m.Borrowed {
			t.Error("decoded message is borrowed")
		}
		again := appendMessage(nil, m)
		if !bytes.Equal(b, again) {
			t.Errorf("% x is decoded and encoded as % x", b, again)
		}
		if messageSize(m) != len(again) {
			t.Errorf("messageSize %d, want %d", messageSize(m), len(again))
		}
	})
}

func FuzzMessageRoundTrip(f *testing.F) {
	f.Add("t", []byte("p"), byte(1), true, byte(2), "type", "reply", []byte("c"), true, "name", "value", int64(1), int64(2), "e", "c", "n", byte(1))
	f.Fuzz(func(t *testing.T, topic string, payload []byte, qos byte, retain bool, format byte, kind, reply string, correlation []byte,
		correlated bool, name, value string, expires, at int64, endpoint, client, node string, hops byte) {
		m := &bridge.Message{
			Topic: bridge.Topic(topic), Payload: payload, QoS: bridge.QoS(qos % 3), Retain: retain,
			PayloadFormat: bridge.PayloadFormat(format % 3), ContentType: kind, ResponseTopic: bridge.Topic(reply),
			Expires: expires, Time: at, Origin: bridge.Origin{Endpoint: endpoint, Client: client, Node: node, Hops: hops},
		}
		if correlated {
			m.CorrelationData = append([]byte{}, correlation...)
		}
		if name != "" {
			m.UserProperties = []bridge.UserProperty{{Name: name, Value: value}, {Name: value, Value: name}}
		}
		got, err := decodeMessage(appendMessage(nil, m))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(m, got, sameMessage); diff != "" {
			t.Error(diff)
		}
	})
}

func FuzzEntry(f *testing.F) {
	for _, k := range []bridge.Kept{
		{Message: full},
		{Message: full, QoS: 2, Retain: true, Identifiers: []uint32{1, 1 << 31}, Shared: "$share/g/a", PacketID: 65535},
	} {
		f.Add(append(appendEntry(nil, &k, false), 0, 0, 0, 0, 0, 0, 0, 1))
		f.Add(appendMessage(appendEntry(nil, &k, true), full))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := readEntry(b)
		if err != nil {
			return
		}
		k := e.kept(7)
		k.Message = &bridge.Message{Payload: make([]byte, 0)}
		if e.body == 0 {
			if m, err := decodeMessage(e.message); err == nil {
				k.Message = m
			}
		}
		again := appendEntry(nil, &k, e.body == 0)
		r, err := readEntry(append(again, b[len(b)-min(8, len(b)):]...))
		if err == nil && (r.flags != e.flags || r.packetID != e.packetID || r.count != e.count || string(r.shared) != string(e.shared)) {
			t.Errorf("% x is read and encoded as % x", b, again)
		}
	})
}

func FuzzFlight(f *testing.F) {
	f.Add([]byte{flightSent, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		id, released, err := readFlight(b)
		if err != nil {
			return
		}
		state := byte(flightSent)
		if released {
			state = flightReleased
		}
		if again := flightRecord(state, id); !bytes.Equal(again[:], b) {
			t.Errorf("% x is read and encoded as % x", b, again)
		}
	})
}

func TestBodyNumbersTellSizes(t *testing.T) {
	for _, size := range []int{0, 1, 100, 127, 128, 129, 1000, 65535, 1 << 20, 268_435_455, 1 << 31} {
		id := newBodyID(5, size)
		got := bodySize(id)
		if got > int64(size) || float64(got) < float64(size)*0.99 {
			t.Errorf("size %d is kept as %d", size, got)
		}
		if id>>bodySizeBits != 5 {
			t.Errorf("count %d, want 5", id>>bodySizeBits)
		}
	}
}
