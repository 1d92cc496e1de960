package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/isthmus-iot/isthmus/bridge"
)

// model is what a store should contain, kept by other means, and the history of it.
type model struct {
	sessions map[uint64]*modelSession
	retained map[string]*bridge.Message
	ended    map[uint64]bool
	rng      *rand.Rand
	lazy     bool // have some messages survive the end of the process only

	steps []step
}

type modelSession struct {
	record        string
	subscriptions map[string]string
	entries       map[uint64]*bridge.Kept
	next          uint64
	received      map[uint16]bool
}

// step is the state after a call.
type step struct {
	receipt bridge.Receipt
	fsync   bool
	state   string
}

func newModel(seed uint64, lazy bool) *model {
	m := &model{
		sessions: map[uint64]*modelSession{}, retained: map[string]*bridge.Message{}, ended: map[uint64]bool{},
		rng: rand.New(rand.NewPCG(seed, 7)), lazy: lazy,
	}
	m.steps = []step{{state: m.text()}}
	return m
}

func (m *model) did(r bridge.Receipt, d bridge.Durability) {
	m.steps = append(m.steps, step{r, d == bridge.Fsync, m.text()})
}

func (m *model) durability() bridge.Durability {
	if m.lazy && m.rng.IntN(4) > 0 {
		return bridge.OS
	}
	return bridge.Fsync
}

// base is the durability of what has none of its own.
func (m *model) base() bridge.Durability {
	if m.lazy {
		return bridge.OS
	}
	return bridge.Fsync
}

func (m *model) message() *bridge.Message {
	return message(fmt.Sprint("topic/", m.rng.IntN(5)), strings.Repeat(fmt.Sprint(m.rng.IntN(10)), m.rng.IntN(1500)))
}

// session picks a session, or 0.
func (m *model) session() uint64 {
	if len(m.sessions) == 0 {
		return 0
	}
	return pick(m.rng, m.sessions)
}

func pick[K interface{ ~uint64 | ~uint16 | ~string }, V any](rng *rand.Rand, from map[K]V) K {
	return slices.Sorted(maps.Keys(from))[rng.IntN(len(from))]
}

// act makes a random call, or a few, to s and notes what must come of it.
func (m *model) act(s *Store) {
	n := m.session()
	x := m.sessions[n]
	switch m.rng.IntN(16) {
	case 0:
		if len(m.sessions) < 8 {
			n = s.NewSession()
			m.sessions[n] = &modelSession{
				record: fmt.Sprint("session ", n), subscriptions: map[string]string{}, entries: map[uint64]*bridge.Kept{},
				next: 1, received: map[uint16]bool{},
			}
			m.did(s.SaveSession(n, []byte(m.sessions[n].record)), m.base())
		}
	case 1:
		if x != nil && m.rng.IntN(3) == 0 {
			delete(m.sessions, n)
			m.did(s.EndSession(n), m.base())
		}
	case 2:
		if x != nil {
			f := fmt.Sprint("filter/", m.rng.IntN(4))
			x.subscriptions[f] = fmt.Sprint(m.rng.IntN(100))
			m.did(s.SaveSubscription(n, f, []byte(x.subscriptions[f])), m.base())
		}
	case 3:
		if x != nil && len(x.subscriptions) > 0 {
			f := pick(m.rng, x.subscriptions)
			delete(x.subscriptions, f)
			m.did(s.RemoveSubscription(n, f), m.base())
		}
	case 4:
		if x != nil {
			id := uint16(1 + m.rng.IntN(9))
			x.received[id] = true
			m.did(s.Receive(n, id), m.base())
		}
	case 5:
		if x != nil && len(x.received) > 0 {
			id := pick(m.rng, x.received)
			delete(x.received, id)
			m.did(s.Release(n, id), m.base())
		}
	case 6:
		v := m.message()
		old, d := m.retained[string(v.Topic)], m.durability()
		m.retained[string(v.Topic)] = v
		m.did(s.Retain(v, old, d), d)
	case 7:
		if len(m.retained) > 0 {
			t := pick(m.rng, m.retained)
			old := m.retained[t]
			delete(m.retained, t)
			m.did(s.Forget(old), m.base())
		}
	case 8, 9:
		if x != nil && len(x.entries) > 0 {
			k := x.entries[pick(m.rng, x.entries)]
			if k.PacketID == 0 {
				k.PacketID = uint16(1 + m.rng.IntN(100))
				m.did(s.Sent(n, k.Position, k.PacketID), m.base())
			} else {
				k.Released = true
				m.did(s.Released(n, k.Position, k.PacketID), m.base())
			}
		}
	case 10, 11:
		if x != nil && len(x.entries) > 0 {
			k := x.entries[pick(m.rng, x.entries)]
			delete(x.entries, k.Position)
			m.did(s.Remove(n, k), m.base())
		}
	case 12, 13:
		if x != nil {
			m.push(s, n, m.message(), &bridge.Body{Sole: true})
		}
	default:
		if x == nil {
			return
		}
		var body bridge.Body
		v := m.message()
		for i, n := range slices.Sorted(maps.Keys(m.sessions)) {
			if i == 0 || m.rng.IntN(2) == 0 {
				m.push(s, n, v, &body)
			}
		}
		if m.rng.IntN(20) > 0 { // else the process ends during the delivery
			s.EndBody(body.ID)
		}
	}
}

func (m *model) push(s *Store, n uint64, v *bridge.Message, body *bridge.Body) {
	x := m.sessions[n]
	k := &bridge.Kept{Position: x.next, Message: v, QoS: bridge.QoS(m.rng.IntN(3)), Identifiers: []uint32{uint32(m.rng.IntN(5))}}
	if m.rng.IntN(3) == 0 {
		k.PacketID = uint16(1 + m.rng.IntN(100))
	}
	x.next++
	x.entries[k.Position] = k
	d := m.durability()
	m.did(s.Push(n, k, body, d), d)
}

func (m *model) text() string {
	var b strings.Builder
	for _, n := range slices.Sorted(maps.Keys(m.sessions)) {
		x := m.sessions[n]
		fmt.Fprintf(&b, "session %d %s\n", n, x.record)
		for _, f := range slices.Sorted(maps.Keys(x.subscriptions)) {
			fmt.Fprintf(&b, " subscription %s %s\n", f, x.subscriptions[f])
		}
		for _, p := range slices.Sorted(maps.Keys(x.entries)) {
			writeKept(&b, x.entries[p])
		}
		for _, id := range slices.Sorted(maps.Keys(x.received)) {
			fmt.Fprintf(&b, " received %d\n", id)
		}
	}
	for _, t := range slices.Sorted(maps.Keys(m.retained)) {
		fmt.Fprintf(&b, "retained %s %d %.5s\n", t, len(m.retained[t].Payload), m.retained[t].Payload)
	}
	return b.String()
}

func writeKept(b *strings.Builder, k *bridge.Kept) {
	fmt.Fprintf(b, " entry %d QoS %d %v packet %d %v", k.Position, k.QoS, k.Identifiers, k.PacketID, k.Released)
	if !k.Released {
		fmt.Fprintf(b, " %s %d %.5s", k.Message.Topic, len(k.Message.Payload), k.Message.Payload)
	}
	b.WriteByte('\n')
}

// textOf is what a store that was opened contains, as model.text writes it.
func textOf(t testing.TB, s *Store, list []bridge.StoredSession) string {
	t.Helper()
	var b strings.Builder
	for _, x := range list {
		fmt.Fprintf(&b, "session %d %s\n", x.Number, x.Record)
		for _, u := range x.Subscriptions {
			fmt.Fprintf(&b, " subscription %s %s\n", u.Filter, u.Record)
		}
		all, err := s.Read(x.Number, 0, x.Next, 1<<30, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		flying := map[uint64]*bridge.Kept{}
		for i := range x.InFlight {
			flying[x.InFlight[i].Position] = &x.InFlight[i]
		}
		waiting := 0
		for i := range all {
			k := &all[i]
			if flying[k.Position] != nil {
				k = flying[k.Position]
			} else if waiting++; waiting == 1 && k.Position != x.Head {
				t.Errorf("session %d: head %d, want %d", x.Number, x.Head, k.Position)
			}
			writeKept(&b, k)
		}
		if waiting != x.Messages {
			t.Errorf("session %d: %d messages, want %d", x.Number, x.Messages, waiting)
		}
		for _, id := range x.Received {
			fmt.Fprintf(&b, " received %d\n", id)
		}
	}
	for _, m := range retained(t, s) {
		fmt.Fprintf(&b, "retained %s %d %.5s\n", m.Topic, len(m.Payload), m.Payload)
	}
	return b.String()
}

// check compares what an opened store contains with the history: it must be the state after some call, and what has a receipt
// up to synced must be in it.
func (m *model) check(t testing.TB, s *Store, list []bridge.StoredSession, synced bridge.Receipt) {
	t.Helper()
	got := textOf(t, s, list)
	least := 0
	for i, st := range m.steps {
		if st.receipt <= synced {
			least = i
		}
	}
	for i := len(m.steps) - 1; i >= least; i-- {
		if m.steps[i].state == got {
			return
		}
	}
	for i := range least {
		if m.steps[i].state == got {
			t.Fatalf("the state is that after call %d, but %d were synced", i, least)
		}
	}
	t.Fatalf("the state is not that after any call; got:\n%s\nwant after call %d:\n%s", got, least, m.steps[least].state)
}

// tidy waits until the sweeper is done and compares what is there with what is referred to.
func tidy(t testing.TB, s *Store) {
	t.Helper()
	var problem string
	tidied := func() bool {
		problem = mess(t, s)
		return problem == ""
	}
	defer func() {
		if t.Failed() {
			t.Log(problem)
		}
	}()
	eventually(t, "nothing is left over", tidied)
}

func mess(t testing.TB, s *Store) string {
	exists := map[uint64]bool{}
	bodies := map[uint64]bool{}
	used, count := int64(0), int64(0)
	problem := ""
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	must(scan(s.db, nil, nil, func(key, value []byte) error {
		number, _ := numberOf(key)
		switch key[0] {
		case kindEnded:
			problem = printKey(key)
		case kindBody:
			bodies[number] = true
			used += bodySize(number)
		case kindSession:
			exists[number] = true
		case kindRetained:
			used += int64(len(key) + len(value))
		}
		return nil
	}))
	must(scan(s.db, nil, nil, func(key, value []byte) error {
		switch number, _ := numberOf(key); key[0] {
		case kindEntry:
			e, err := readEntry(value)
			must(err)
			used += int64(e.stored)
			count++
			if e.body != 0 && !bodies[e.body] {
				problem = printKey(key) + " without its body"
			}
			fallthrough
		case kindSubscription, kindFlight, kindReceived:
			if !exists[number] {
				problem = printKey(key) + " without its session"
			}
		}
		return nil
	}))
	must(scan(s.db, []byte{kindEntry}, []byte{kindEntry + 1}, func(key, value []byte) error {
		e, _ := readEntry(value)
		delete(bodies, e.body)
		return nil
	}))
	if len(bodies) > 0 && problem == "" {
		problem = fmt.Sprintf("%d bodies that nothing refers to", len(bodies))
	}
	if st := s.Stats(); problem == "" && (st.Used != used || st.Entries != count) {
		problem = fmt.Sprintf("%d bytes and %d entries, stats say %d and %d", used, count, st.Used, st.Entries)
	}
	return problem
}
