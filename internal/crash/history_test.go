package crash

import (
	"bytes"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

// moment is a place in the history; 0: it has not come.
type moment int

// history is all that was seen of a run, in one order. Its methods may be called from any goroutine.
type history struct {
	mu       sync.Mutex
	began    time.Time
	events   []event
	life     int // of the broker: how often it was started
	names    []string
	topics   map[string]*topic
	readers  []*reader
	observed []observation
	findings []finding // of the clients
	progress int       // acknowledgements and deliveries
	trap     *trap     // nil: none is set
}

// event is a packet or something else that happened.
type event struct {
	since time.Duration
	life  int
	who   int // in names; below 0: the broker itself
	conn  int // of the client, counted from 1
	out   bool
	kind  wire.Type // 0: see text
	id    uint16
	dup   bool
	msg   *publication
	text  string
}

// topic is what one publisher publishes to, always with the same QoS.
type topic struct {
	name   string
	qos    byte
	padded bool // messages have different sizes, some are large
	all    []*publication
}

// publication is one message and what became of it at its publisher.
type publication struct {
	topic   *topic
	n       int // in its topic, from 1
	retain  bool
	clears  bool // the retained value: the payload is empty
	props   wire.Props
	began   moment // before it was first sent
	acked   moment // PUBACK or PUBREC has come
	sends   int    // PUBLISH packets
	through bool   // PUBACK or PUBCOMP has come
}

// reader is what a subscriber has seen.
type reader struct {
	who           int
	v5            bool
	asPublished   bool // retain flags are as published, and no retained values are asked for
	subscriptions []*subscription
	deliveries    []delivery
	count         map[*publication]int
	ended         bool // the session is over: what it did not get any more is not lost
}

// subscription is one stay of a filter in a session.
type subscription struct {
	filter     string
	qos        byte
	identifier uint32 // 0: none
	handling   byte   // of retained values
	asked      moment // before SUBSCRIBE was first sent
	granted    moment // SUBACK has come
	leaving    moment // before UNSUBSCRIBE was first sent
	left       moment // UNSUBACK has come
}

// delivery is a message that the application of a subscriber got: a QoS 2 message that is sent again is none.
type delivery struct {
	at          moment
	msg         *publication
	qos         byte
	dup, retain bool
	id          uint16
	conn        int
	identifiers []uint32
}

// observation is a retained value that somebody got who asked for it.
type observation struct {
	who   int
	topic *topic
	n     int    // 0: there was none
	since moment // before it was asked for
	at    moment
}

// finding is something that must not be.
type finding struct {
	kind string // for counting
	text string
	who  int          // whom it concerns; below 0: nobody in particular
	msg  *publication // nil: none
	at   moment
}

func newHistory() *history {
	return &history{began: time.Now(), topics: make(map[string]*topic)}
}

// client makes a client known.
func (h *history) client(name string) (who int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = append(h.names, name)
	return len(h.names) - 1
}

// topic makes a topic known.
func (h *history) topic(name string, qos byte, padded bool) *topic {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := &topic{name: name, qos: qos, padded: padded}
	h.topics[name] = t
	return t
}

// reader makes a subscriber known.
func (h *history) reader(who int, v5, asPublished bool) *reader {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &reader{who: who, v5: v5, asPublished: asPublished, count: make(map[*publication]int)}
	h.readers = append(h.readers, r)
	return r
}

// end ends the session of a reader.
func (h *history) end(r *reader) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.ended = true
}

// add appends an event; h.mu is held.
func (h *history) add(e event) moment {
	e.since, e.life = time.Since(h.began), h.life
	h.events = append(h.events, e)
	at := moment(len(h.events))
	h.walk(e)
	return at
}

// note appends an event.
func (h *history) note(e event) moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.add(e)
}

// now is the place that the last event has.
func (h *history) now() moment {
	h.mu.Lock()
	defer h.mu.Unlock()
	return moment(len(h.events))
}

// lives begins another life of the broker.
func (h *history) lives() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.life++
	h.add(event{who: -1, text: "starts"})
	return h.life
}

// alive is the life that the broker has.
func (h *history) alive() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.life
}

// message makes the next message of a topic.
func (h *history) message(t *topic, retain, clears bool) *publication {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := &publication{topic: t, n: len(t.all) + 1, retain: retain, clears: clears}
	t.all = append(t.all, m)
	return m
}

// sending is called before a PUBLISH of a message is written.
func (h *history) sending(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.add(e)
	if e.msg.began == 0 {
		e.msg.began = at
	}
	e.msg.sends++
}

// acknowledged is called when the broker has taken responsibility for a message.
func (h *history) acknowledged(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	at := h.add(e)
	h.progress++
	if e.msg.acked == 0 {
		e.msg.acked = at
	}
}

// complete is called when a publisher has forgotten a message.
func (h *history) complete(m *publication) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m.through = true
	h.progress++
}

// find finds the message of a PUBLISH; nil if nobody has sent it.
func (h *history) find(topic string, payload []byte) *publication {
	h.mu.Lock()
	defer h.mu.Unlock()
	t := h.topics[topic]
	rest, _ := bytes.CutPrefix(payload, []byte(topic+" "))
	number, _, _ := bytes.Cut(rest, []byte(" "))
	n, err := strconv.Atoi(string(number))
	if t == nil || err != nil || n < 1 || n > len(t.all) {
		return nil
	}
	if m := t.all[n-1]; m.sends > 0 && bytes.Equal(m.payload(), payload) {
		return m
	}
	return nil
}

// delivered records a delivery, or a retained value that a subscription asked for.
func (h *history) delivered(r *reader, e event, d delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.at = h.add(e)
	h.progress++
	if d.retain && !r.asPublished {
		since := d.at
		for _, s := range r.subscriptions {
			if s.asked != 0 && matches(s.filter, d.msg.topic.name) {
				since = min(since, s.asked)
			}
		}
		h.observed = append(h.observed, observation{r.who, d.msg.topic, d.msg.n, since, d.at})
		return
	}
	r.deliveries = append(r.deliveries, d)
	r.count[d.msg]++
}

// observe records a retained value that an inspector got; n is 0 where there was none.
func (h *history) observe(who int, t *topic, n int, since moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.observed = append(h.observed, observation{who, t, n, since, h.add(event{who: who, text: fmt.Sprintf("sees %s retain %d", t.name, n)})})
}

// stamp records an event of a subscription and puts its place where to points, unless there is one already.
func (h *history) stamp(e event, to *moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := h.add(e); *to == 0 {
		*to = at
	}
}

// subscribed makes a subscription known that is about to be asked for.
func (h *history) subscribed(r *reader, s *subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	r.subscriptions = append(r.subscriptions, s)
}

// wrong records a finding of a client.
func (h *history) wrong(who int, msg *publication, kind, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	h.findings = append(h.findings, finding{kind, text, who, msg, h.add(event{who: who, msg: msg, text: "FOUND " + kind + ": " + text})})
}

// found counts what the clients have found.
func (h *history) found() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.findings)
}

// payload names the message; what follows differs from message to message, also in size.
func (m *publication) payload() []byte {
	if m.clears {
		return nil
	}
	b := fmt.Appendf(nil, "%s %d ", m.topic.name, m.n)
	if !m.topic.padded {
		return b
	}
	x := uint32(m.n)*2654435761 ^ uint32(len(m.topic.name))*40503 ^ uint32(m.topic.name[len(m.topic.name)-1])*97
	x ^= x >> 15
	size := int(x % 120)
	switch x / 128 % 64 {
	case 0, 1, 2, 3, 4, 5:
		size = int(x % 4096)
	case 6:
		size = 10_000 + int(x%30_000)
	}
	fill := byte('a' + x%26)
	return append(b, bytes.Repeat([]byte{fill}, size)...)
}

// String names the message for people.
func (m *publication) String() string {
	flags := ""
	if m.retain {
		flags = " retain"
	}
	if m.clears {
		flags = " clear"
	}
	return fmt.Sprintf("%s#%d(qos %d%s)", m.topic.name, m.n, m.topic.qos, flags)
}
