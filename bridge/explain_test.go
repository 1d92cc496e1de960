package bridge

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// oracle is a sink that knows what it would do.
type oracle struct {
	nowhere
	o   Outcome
	why string
}

func (x oracle) Forecast(*Message, *Subscription, QoS) (Outcome, string) { return x.o, x.why }

func explain(h *Hub, m Message, client, user string) string {
	var lines []string
	for _, s := range h.Explain(&m, client, user) {
		lines = append(lines, s.String())
	}
	return strings.Join(lines, "\n")
}

func TestExplainNamesEveryStage(t *testing.T) {
	h := newHub(t, Config{Access: perUser{
		"p": {write: []Filter{"a/#"}, read: []Filter{"a/#"}}, "s": everything(), "blind": {read: []Filter{"x"}}, "worker": everything(),
	}, Limits: Limits{TopicLevels: 4}})
	p, s := attach(t, h, "p"), attach(t, h, "s")
	subscribe(t, s, "a/b", SubscribeOptions{QoS: 1, Identifier: 7}, oracle{o: Queued, why: "offline"})
	subscribe(t, p, "a/+", SubscribeOptions{NoLocal: true}, nowhere{})
	subscribe(t, attach(t, h, "worker"), "$share/g/#", SubscribeOptions{QoS: 2}, oracle{o: Dropped, why: "queue_full"})
	blind, err := h.Attach(&Identity{User: "s", ClientID: "blind"}, h.Counters("test"), func(Reason) {})
	if err != nil {
		t.Fatal(err)
	}
	subscribe(t, blind, "a/#", SubscribeOptions{}, nowhere{})
	blind.SetIdentity(&Identity{User: "blind", ClientID: "blind"})

	for _, tt := range []struct {
		name         string
		m            Message
		client, user string
		want         string
	}{
		{"everything on the way", Message{Topic: "a/b", QoS: 2}, "p", "", strings.TrimSpace(`
ok   topic        "a/b" has 2 levels
ok   acl          client "p" (p): write: granted in the test
ok   mapping      none
ok   retained     not retained, and nothing is retained here
ok   subscription test "s" filter "a/b": QoS 1, queued, identifier 7: offline
STOP subscription test "blind" filter "a/#": read: no rule matches
STOP subscription test "p" filter "a/+": no local: it is the publisher
STOP shared       test "worker" filter "$share/g/#": QoS 2, dropped: queue_full, one of 1 in group "g"`)},
		{"a topic over the limit", Message{Topic: "a/b/c/d/e"}, "p", "", "STOP topic        topic has more than 4 levels"},
		{"a topic that is none", Message{Topic: "a/#"}, "p", "", "STOP topic        topic name has a wildcard"},
		{"a write that no rule grants", Message{Topic: "b"}, "p", "", strings.TrimSpace(`
ok   topic        "b" has 1 levels
STOP acl          client "p" (p): write: no rule matches`)},
		{"the server's topics", Message{Topic: "$SYS/a"}, "s", "", strings.TrimSpace(`
ok   topic        "$SYS/a" has 2 levels
STOP acl          client "s" (s): write: publishing: "$SYS/a": $SYS is the server's`)},
		{"somebody who is not here", Message{Topic: "x"}, "new", "nobody", strings.TrimSpace(`
ok   topic        "x" has 1 levels
STOP acl          client "new" (nobody): write: the user is not admitted`)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, explain(h, tt.m, tt.client, tt.user)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestExplainTellsOfRetainedValuesAndNobody(t *testing.T) {
	h := newHub(t, Config{})
	c := attach(t, h, "c")
	says := func(m Message, want string) {
		t.Helper()
		if got := explain(h, m, "new", ""); !strings.Contains(got, want) || !strings.Contains(got, "anonymous") {
			t.Errorf("want %q in\n%s", want, got)
		}
	}
	says(Message{Topic: "a", Payload: []byte("x"), Retain: true}, "becomes the first retained value")
	says(Message{Topic: "a"}, "no subscription matches")
	retain(t, c, "a", "12345")
	says(Message{Topic: "a"}, "a value of 5 bytes is and stays")
	says(Message{Topic: "a", Retain: true}, "removes the retained value")
	says(Message{Topic: "a", Payload: []byte("x"), Retain: true}, "replaces a retained value of 5 bytes")
	subscribe(t, c, "a", SubscribeOptions{}, nowhere{})
	subscribe(t, c, "#", SubscribeOptions{QoS: 1}, nowhere{})
	says(Message{Topic: "a", QoS: 1}, "once for the client's 2 matching filters, at the highest QoS")
	if n := h.Stats().Retained; n != 1 {
		t.Errorf("explaining changed the retained values: %d", n)
	}
}
