package store

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"io"
	"time"
	"unicode/utf8"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/isthmus-iot/isthmus/bridge"
)

// Export writes all that is in a store that no process uses as lines of JSON, for people and other programs. It reads what can be
// read: a record that cannot is a line of kind "damaged".
func Export(dir string, w io.Writer) error { return export(dir, vfs.Default, w) }

func export(dir string, f vfs.FS, w io.Writer) error {
	db, err := openReadOnly(dir, f, func(pebble.DataCorruptionInfo) {})
	if err != nil {
		return explain(dir, err)
	}
	out := bufio.NewWriter(w)
	x := &exporter{db: db, json: json.NewEncoder(out), queues: map[uint64]string{}}
	x.json.SetEscapeHTML(false)
	err = x.all()
	if e := db.Close(); err == nil {
		err = e
	}
	if err != nil {
		return explain(dir, err)
	}
	return out.Flush()
}

type exporter struct {
	db     *pebble.DB
	json   *json.Encoder
	queues map[uint64]string // named ones by their numbers
}

// line is a line of an export.
type line struct {
	Kind     string          `json:"kind"`
	Session  *uint64         `json:"session,omitempty"`
	Queue    string          `json:"queue,omitempty"` // instead of a session
	Limits   *exportedLimits `json:"limits,omitempty"`
	Filter   string          `json:"filter,omitempty"`
	Record   json.RawMessage `json:"record,omitempty"`
	Base64   []byte          `json:"record_base64,omitempty"` // where it is not JSON
	Key      string          `json:"key,omitempty"`
	Error    string          `json:"error,omitempty"`
	PacketID uint16          `json:"packet_id,omitempty"`

	Position    *uint64       `json:"position,omitempty"`
	State       string        `json:"state,omitempty"` // "sent" or "released"
	QoS         *bridge.QoS   `json:"qos,omitempty"`   // granted
	Retain      bool          `json:"retain,omitempty"`
	Identifiers []uint32      `json:"subscription_identifiers,omitempty"`
	Shared      bridge.Filter `json:"shared,omitempty"`
	Message     *exported     `json:"message,omitempty"`
}

// exported is a message.
type exported struct {
	Topic         string             `json:"topic"`
	Payload       *string            `json:"payload,omitempty"`
	PayloadBase64 []byte             `json:"payload_base64,omitempty"` // where it is not UTF-8
	QoS           bridge.QoS         `json:"qos"`
	Retain        bool               `json:"retain,omitempty"`
	Format        string             `json:"payload_format,omitempty"`
	ContentType   string             `json:"content_type,omitempty"`
	ResponseTopic string             `json:"response_topic,omitempty"`
	Correlation   *[]byte            `json:"correlation_base64,omitempty"`
	Properties    []exportedProperty `json:"user_properties,omitempty"`
	Expires       string             `json:"expires,omitempty"`
	Time          string             `json:"time"`
	Endpoint      string             `json:"endpoint,omitempty"`
	Client        string             `json:"client,omitempty"`
	Node          string             `json:"node,omitempty"`
	Hops          uint8              `json:"hops,omitempty"`
}

type exportedProperty struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func (x *exporter) all() error {
	for _, part := range [...]func() error{
		func() error { return x.each(kindSession, x.session) },
		func() error { return x.each(kindSubscription, x.subscription) },
		func() error { return x.each(kindQueue, x.queue) },
		func() error { return x.each(kindEntry, x.entry) },
		func() error { return x.each(kindReceived, x.received) },
		func() error { return x.each(kindRetained, x.retained) },
	} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// each writes a line for each record of a kind. Only what cannot be written ends it: damage is a line.
func (x *exporter) each(kind byte, of func(key, value []byte) (*line, error)) error {
	var failed error
	last := []byte{kind}
	err := scan(x.db, []byte{kind}, []byte{kind + 1}, func(key, value []byte) error {
		last = append(last[:0], key...)
		l, err := of(key, value)
		if err != nil {
			l = &line{Kind: "damaged", Key: printKey(key), Error: err.Error()}
		}
		failed = x.json.Encode(l)
		return failed
	})
	if err == nil || failed != nil {
		return failed
	}
	return x.json.Encode(&line{Kind: "damaged", Key: "after " + printKey(last), Error: err.Error()})
}

func (l *line) record(value []byte) {
	if json.Valid(value) {
		l.Record = value
	} else {
		l.Base64 = value
	}
}

func (x *exporter) session(key, value []byte) (*line, error) {
	number, ok := numberOf(key)
	if !ok {
		return nil, errRecord
	}
	l := &line{Kind: "session", Session: &number}
	l.record(value)
	return l, nil
}

func (x *exporter) subscription(key, value []byte) (*line, error) {
	number, ok := numberOf(key)
	if !ok {
		return nil, errRecord
	}
	l := &line{Kind: "subscription", Session: &number, Filter: string(key[numberKeySize:])}
	l.record(value)
	return l, nil
}

type exportedLimits struct {
	Bytes    int64  `json:"bytes"`
	Messages int    `json:"messages"`
	Age      string `json:"age"`
	Overflow string `json:"overflow"`
}

func (x *exporter) queue(key, value []byte) (*line, error) {
	number, l, err := readQueueRecord(value)
	if err != nil {
		return nil, err
	}
	name := string(key[1:])
	x.queues[number] = name
	limits := exportedLimits{l.Bytes, l.Messages, l.Age.String(), l.Overflow.String()}
	return &line{Kind: "queue", Queue: name, Limits: &limits}, nil
}

func (x *exporter) entry(key, value []byte) (*line, error) {
	number, _ := numberOf(key)
	position, ok := positionOf(key)
	e, err := readEntry(value)
	if err != nil || !ok {
		return nil, errRecord
	}
	k := e.kept(position)
	flight := positionKey(kindFlight, number, position)
	_, err = get(x.db, flight[:], func(v []byte) (err error) {
		k.PacketID, k.Released, err = readFlight(v)
		return err
	})
	if err != nil {
		return nil, err
	}
	if k.Message, err = e.load(x.db); err != nil {
		return nil, err
	}
	l := &line{
		Kind: "queued", Session: &number, Position: &position, QoS: &k.QoS, Retain: k.Retain, Identifiers: k.Identifiers,
		Shared: k.Shared, PacketID: k.PacketID, Message: exportMessage(k.Message),
	}
	if name, is := x.queues[number]; is {
		l.Session, l.Queue = nil, name
	}
	switch {
	case k.Released:
		l.Kind, l.State = "inflight", "released"
	case k.PacketID != 0:
		l.Kind, l.State = "inflight", "sent"
	}
	return l, nil
}

func (x *exporter) received(key, _ []byte) (*line, error) {
	number, ok := numberOf(key)
	if !ok || len(key) != receivedKeySize {
		return nil, errRecord
	}
	return &line{Kind: "received", Session: &number, PacketID: binary.BigEndian.Uint16(key[numberKeySize:])}, nil
}

func (x *exporter) retained(_, value []byte) (*line, error) {
	m, err := decodeMessage(value)
	if err != nil {
		return nil, err
	}
	return &line{Kind: "retained", Message: exportMessage(m)}, nil
}

func exportMessage(m *bridge.Message) *exported {
	x := &exported{
		Topic: string(m.Topic), QoS: m.QoS, Retain: m.Retain, ContentType: m.ContentType, ResponseTopic: string(m.ResponseTopic),
		Time: exportTime(m.Time), Endpoint: m.Origin.Endpoint, Client: m.Origin.Client, Node: m.Origin.Node, Hops: m.Origin.Hops,
	}
	if text := string(m.Payload); utf8.ValidString(text) {
		x.Payload = &text
	} else {
		x.PayloadBase64 = m.Payload
	}
	switch m.PayloadFormat {
	case bridge.FormatBytes:
		x.Format = "bytes"
	case bridge.FormatUTF8:
		x.Format = "utf-8"
	}
	if m.CorrelationData != nil {
		x.Correlation = &m.CorrelationData
	}
	for _, p := range m.UserProperties {
		x.Properties = append(x.Properties, exportedProperty(p))
	}
	if m.Expires != 0 {
		x.Expires = exportTime(m.Expires)
	}
	return x
}

func exportTime(ns int64) string { return time.Unix(0, ns).UTC().Format(time.RFC3339Nano) }
