package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/isthmus-iot/isthmus/bridge"
)

// sameMessage compares messages by what is stored of them.
var sameMessage = cmp.Options{cmpopts.IgnoreUnexported(bridge.Message{}), cmpopts.EquateEmpty()}

func TestASessionIsThereAfterARestart(t *testing.T) {
	dir := t.TempDir() + "/data"
	s := opened(t, Config{Dir: dir})
	n := s.NewSession()
	s.SaveSession(n, []byte("record"))
	s.SaveSubscription(n, "a/#", []byte("one"))
	s.SaveSubscription(n, "b/+", []byte("two"))
	s.SaveSubscription(n, "b/+", []byte("three"))
	s.SaveSubscription(n, "c", nil)
	s.RemoveSubscription(n, "c")
	var kept []bridge.Kept
	for i := range 6 {
		k, _ := push(s, n, uint64(10+i), message("a/b", fmt.Sprint("payload ", i)))
		kept = append(kept, k)
	}
	s.Sent(n, 10, 7)
	s.Sent(n, 11, 8)
	s.Released(n, 11, 8)
	s.Sent(n, 12, 9)
	kept[2].PacketID = 9
	s.Remove(n, &kept[2])
	s.Receive(n, 4)
	s.Receive(n, 5)
	s.Release(n, 4)
	other := s.NewSession()
	wait(t, s, s.SaveSession(other, nil))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s, list := loaded(t, Config{Dir: dir})
	want := []bridge.StoredSession{{
		Number:        n,
		Record:        []byte("record"),
		Subscriptions: []bridge.StoredSubscription{{Filter: "a/#", Record: []byte("one")}, {Filter: "b/+", Record: []byte("three")}},
		InFlight: []bridge.Kept{
			{Position: 10, Message: kept[0].Message, QoS: 1, PacketID: 7, Size: kept[0].Size},
			{Position: 11, QoS: 1, PacketID: 8, Released: true, Size: kept[1].Size},
		},
		Head:     13,
		Next:     16,
		Messages: 3,
		Bytes:    3 * kept[3].Message.Size(),
		Received: []uint16{5},
	}, {Number: other}}
	if diff := cmp.Diff(want, list, sameMessage); diff != "" {
		t.Errorf("sessions (-want +got):\n%s", diff)
	}
	got, err := s.Read(n, 13, 100, 10, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(kept[3:], got, sameMessage); diff != "" {
		t.Errorf("queue (-want +got):\n%s", diff)
	}
	if next := s.NewSession(); next <= other {
		t.Errorf("session number %d given out again", next)
	}
}

func TestReadKeepsToItsLimits(t *testing.T) {
	s := opened(t, Config{})
	var last bridge.Receipt
	for i := range 20 {
		_, last = push(s, 1, uint64(i), message("t", "0123456789"))
	}
	push(s, 2, 0, message("t", "other"))
	wait(t, s, last)
	size := message("t", "0123456789").Size()
	for _, c := range []struct {
		from, before  uint64
		max, maxBytes int
		want          string
	}{
		{0, 100, 3, 1 << 20, "0 1 2 "},
		{5, 8, 10, 1 << 20, "5 6 7 "},
		{18, 1 << 63, 10, 1 << 20, "18 19 "},
		{4, 100, 10, 2 * size, "4 5 "},
		{4, 100, 10, 1, "4 "},
		{4, 4, 10, 100, ""},
		{9, 4, 10, 100, ""},
		{30, 40, 10, 100, ""},
	} {
		list, err := s.Read(1, c.from, c.before, c.max, c.maxBytes)
		if err != nil {
			t.Fatal(err)
		}
		if got := positions(list); got != c.want {
			t.Errorf("Read(%d, %d, %d, %d) = %q, want %q", c.from, c.before, c.max, c.maxBytes, got, c.want)
		}
	}
}

func TestAMessageForManyQueuesIsStoredOnce(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	const queues = 10
	m := message("topic", "payload for all")
	m.Borrowed = true
	var body bridge.Body
	kept := make([]bridge.Kept, queues)
	for i := range kept {
		s.SaveSession(uint64(i+1), nil)
		kept[i] = bridge.Kept{Position: 1, Message: m, QoS: 1, Identifiers: []uint32{uint32(i), 1 << 30}, Shared: "$share/g/t"}
		s.Push(uint64(i+1), &kept[i], &body, bridge.Fsync)
		if kept[i].Body == 0 || kept[i].Body != body.ID {
			t.Fatalf("body %d, want %d", kept[i].Body, body.ID)
		}
	}
	s.EndBody(body.ID)
	wait(t, s, s.SaveSession(99, nil))
	if got := keys(t, s); got[kindBody] != 1 || got[kindEntry] != queues {
		t.Fatalf("records %v", got)
	}
	for i := range queues / 2 {
		s.Remove(uint64(i+1), &kept[i])
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	s = opened(t, Config{Dir: dir})
	for i := queues / 2; i < queues; i++ {
		list, err := s.Read(uint64(i+1), 0, 10, 10, 1000)
		if err != nil || len(list) != 1 {
			t.Fatalf("queue %d: %v, error %v", i, list, err)
		}
		if diff := cmp.Diff(string(m.Payload), string(list[0].Message.Payload)); diff != "" {
			t.Error(diff)
		}
		wait(t, s, s.Remove(uint64(i+1), &list[0]))
		if got := keys(t, s)[kindBody]; (got == 1) != (i < queues-1) {
			t.Errorf("%d bodies after %d removals", got, i+1)
		}
	}
	if st := s.Stats(); st.Used != 0 || st.Entries != 0 {
		t.Errorf("in use when all is removed: %d bytes, %d entries", st.Used, st.Entries)
	}
}

func TestABodyLastsUntilItsDeliveryIsOver(t *testing.T) {
	s := opened(t, Config{})
	var body bridge.Body
	k := bridge.Kept{Position: 1, Message: message("t", "p")}
	s.Push(1, &k, &body, bridge.Fsync)
	wait(t, s, s.Remove(1, &k))
	if got := keys(t, s)[kindBody]; got != 1 {
		t.Fatalf("%d bodies during the delivery, want 1", got)
	}
	k2 := bridge.Kept{Position: 1, Message: k.Message}
	s.Push(2, &k2, &body, bridge.Fsync)
	s.EndBody(body.ID)
	wait(t, s, s.SaveSession(1, nil))
	if got := keys(t, s)[kindBody]; got != 1 {
		t.Fatalf("%d bodies with an entry, want 1", got)
	}
	wait(t, s, s.Remove(2, &k2))
	if got := keys(t, s)[kindBody]; got != 0 {
		t.Fatalf("%d bodies, want 0", got)
	}
	body = bridge.Body{}
	k = bridge.Kept{Position: 2, Message: message("t", "p")}
	s.Push(1, &k, &body, bridge.Fsync)
	s.Remove(1, &k)
	s.EndBody(body.ID)
	wait(t, s, s.SaveSession(1, nil))
	if got := keys(t, s)[kindBody]; got != 0 || s.Stats().Used != 0 {
		t.Fatalf("%d bodies and %d bytes, want none", got, s.Stats().Used)
	}
}

func TestASessionThatEndsLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	var shared bridge.Body
	for n := uint64(1); n <= 3; n++ {
		s.SaveSession(n, []byte("x"))
		for i := range 300 {
			s.SaveSubscription(n, fmt.Sprint("f/", i), []byte("x"))
			s.Receive(n, uint16(i+1))
		}
		for i := range 5000 {
			push(s, n, uint64(i), message("t", "p"))
		}
		k := bridge.Kept{Position: 9000, Message: message("t", "p")}
		s.Push(n, &k, &shared, bridge.Fsync)
		s.Sent(n, 9000, 4)
	}
	s.EndBody(shared.ID)
	s.EndSession(1)
	eventually(t, "the session is gone", func() bool {
		got := keys(t, s)
		return got[kindEnded] == 0 && got[kindEntry] == 2*5001 && got[kindSubscription] == 600 && got[kindReceived] == 600
	})
	s.EndSession(2)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, list := loaded(t, Config{Dir: dir})
	if len(list) != 1 || list[0].Number != 3 {
		t.Fatalf("sessions %v", list)
	}
	s.EndSession(3)
	eventually(t, "only the version of the format is left", func() bool {
		got := keys(t, s)
		return len(got) == 1 && got[kindFormat] == 1
	})
	if st := s.Stats(); st.Used != 0 || st.Entries != 0 {
		t.Errorf("in use when all is removed: %d bytes, %d entries", st.Used, st.Entries)
	}
}

func TestRetainedValuesAreThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	s := opened(t, Config{Dir: dir})
	a, b, c := message("a", "1"), message("b", "2"), message("a", "33")
	s.Retain(a, nil, bridge.Fsync)
	s.Retain(b, nil, bridge.Fsync)
	s.Retain(c, a, bridge.OS)
	wait(t, s, s.Forget(b))
	used := s.Stats().Used
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = opened(t, Config{Dir: dir})
	if diff := cmp.Diff([]*bridge.Message{c}, retained(t, s), sameMessage); diff != "" {
		t.Error(diff)
	}
	if got := s.Stats().Used; got != used || got != retainedSize(c) {
		t.Errorf("%d bytes in use, before %d, want %d", got, used, retainedSize(c))
	}
	wait(t, s, s.Forget(c))
	if got := s.Stats().Used; got != 0 {
		t.Errorf("%d bytes in use, want 0", got)
	}
}
