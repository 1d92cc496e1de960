package bridge

import (
	"runtime"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// borrowed is a message all of whose bytes lie in one buffer.
func borrowed() (m Message, buf []byte) {
	buf = []byte("a/b|payload|text/plain|reply/to|corr|name|value|node")
	s := view(buf)
	m = Message{
		Topic: Topic(s[0:3]), Payload: buf[4:11], QoS: 2, Retain: true, PayloadFormat: FormatUTF8, ContentType: s[12:22],
		ResponseTopic: Topic(s[23:31]), CorrelationData: buf[32:36], UserProperties: []UserProperty{{s[37:41], s[42:47]}, {"", ""}}, Expires: 7, Time: 5,
		Origin: Origin{Endpoint: "test", Client: "c", Node: s[48:52], Hops: 1}, Borrowed: true,
	}
	return m, buf
}

func TestAKeptMessageOwnsItsBytes(t *testing.T) {
	m, buf := borrowed()
	k := m.Keep()
	want := Message{
		Topic: "a/b", Payload: []byte("payload"), QoS: 2, Retain: true, PayloadFormat: FormatUTF8, ContentType: "text/plain", ResponseTopic: "reply/to",
		CorrelationData: []byte("corr"), UserProperties: []UserProperty{{"name", "value"}, {"", ""}}, Expires: 7, Time: 5,
		Origin: Origin{Endpoint: "test", Client: "c", Node: "node", Hops: 1},
	}
	clear(buf)
	m.UserProperties[0] = UserProperty{"x", "y"}
	if diff := cmp.Diff(want, *k, cmpopts.IgnoreUnexported(Message{})); diff != "" {
		t.Error(diff)
	}
	if m.Keep() != k {
		t.Error("the second caller got another copy")
	}
	if k.Keep() != k {
		t.Error("what is kept was copied again")
	}
	if cap(k.Payload) != len(k.Payload) {
		t.Error("appending to the payload would write over the correlation data")
	}
	empty := (&Message{Topic: "a", Borrowed: true, CorrelationData: []byte{}}).Keep()
	if empty.CorrelationData == nil || len(empty.Payload) != 0 || empty.UserProperties != nil {
		t.Errorf("kept as %+v", empty)
	}
}

func TestAKeptMessagePinsNothing(t *testing.T) {
	freed := make(chan bool)
	k := func() *Message {
		m, buf := borrowed()
		runtime.AddCleanup(unsafe.SliceData(buf), func(int) { close(freed) }, 0)
		return m.Keep()
	}()
	deadline := time.After(10 * time.Second)
	for {
		runtime.GC()
		select {
		case <-freed:
			runtime.KeepAlive(k)
			return
		case <-deadline:
			t.Fatal("the buffer that the message was borrowed from stays in memory")
		default:
		}
	}
}

func TestAMessageForManySessionsIsCopiedOnce(t *testing.T) {
	h := newHub(t, Config{})
	kept := make(map[*Message]int)
	keep := sinkFunc(func(d *Delivery) Outcome {
		kept[d.Message.Keep()]++
		return Queued
	})
	for i := range 10 {
		c := attach(t, h, name("c", i))
		subscribe(t, c, "a/b", SubscribeOptions{}, keep)
		subscribe(t, c, "$share/g/#", SubscribeOptions{}, keep)
	}
	p := attach(t, h, "p")
	for range 2 {
		m, _ := borrowed()
		publish(t, p, m)
	}
	kept[p.RetainedValue("a/b")]++
	if len(kept) != 2 {
		t.Fatalf("2 messages were kept as %d copies", len(kept))
	}
	for _, n := range kept {
		if n != 11 && n != 12 {
			t.Errorf("a copy was handed out %d times, want 11, and once more for the retained one", n)
		}
	}
}

func TestTheSizeOfAMessageIsWhatKeepingItTakes(t *testing.T) {
	if n := unsafe.Sizeof(Message{}); n > messageOverhead {
		t.Errorf("a Message takes %d bytes, counted as %d", n, messageOverhead)
	}
	if n := unsafe.Sizeof(UserProperty{}); n != userPropertyOverhead {
		t.Errorf("a user property takes %d bytes, counted as %d", n, userPropertyOverhead)
	}
	m, _ := borrowed()
	if n, want := m.Size(), messageOverhead+3+7+10+8+4+9+2*userPropertyOverhead; n != want || m.Keep().Size() != n {
		t.Errorf("size %d, kept %d, want %d", n, m.Keep().Size(), want)
	}
}

func TestExpiryCountsDownInWholeSecondsRoundedUp(t *testing.T) {
	const s = int64(time.Second)
	for _, tt := range []struct {
		expires, now int64
		want         uint32
		ok, expired  bool
	}{
		{0, 5 * s, 0, false, false}, {10 * s, 0, 10, true, false}, {10 * s, 1, 10, true, false}, {10 * s, s, 9, true, false},
		{10 * s, 10*s - 1, 1, true, false}, {10 * s, 10 * s, 0, true, true}, {10 * s, 11 * s, 0, true, true},
	} {
		m := Message{Expires: tt.expires}
		if n, ok := m.ExpirySeconds(tt.now); n != tt.want || ok != tt.ok || m.Expired(tt.now) != tt.expired {
			t.Errorf("expires at %d, now %d: %d s left (%v), expired %v", tt.expires, tt.now, n, ok, m.Expired(tt.now))
		}
	}
	far := Message{Expires: 1<<63 - 1}
	if n, ok := far.ExpirySeconds(0); !ok || n == 0 {
		t.Errorf("the farthest expiry is %d s away", n)
	}
}
