package bridgetest

import (
	"errors"
	"fmt"
	"strings"

	"github.com/isthmus-iot/isthmus/bridge"
)

var refusalChecks = []check{
	{"what the rules forbid reaches nobody", nil, checkForbidden},
	{"a wrong password does not get in", func(e Endpoint) bool { return e.Passwords }, checkPassword},
	{"a revoked right holds at once", nil, checkRevoked},
	{"malformed topics and filters are refused", nil, checkMalformed},
	{"what is too large is refused", func(e Endpoint) bool { return e.MaxPayload > 0 }, checkOversize},
}

// refusal checks an error of a peer: where the protocol can say why, it must say it.
func (b *bench) refusal(what string, err error, want bridge.Reason) {
	b.Helper()
	var r *Refused
	if errors.As(err, &r) && r.Code != b.ep.Code(want) {
		b.Errorf("%s was refused with code %#x, want %#x for %q", what, r.Code, b.ep.Code(want), want)
	}
}

// redial gives a connected peer: an endpoint may close the connection of one that it refused something.
func (b *bench) redial(p Peer, id string) Peer {
	b.Helper()
	_ = p.Close()
	return b.dial(id)
}

func checkForbidden(b *bench) {
	r := b.record("#")
	b.hub.SetAccess(rulesFor("may/#"))
	p := b.dial("p")
	for i, q := range b.ep.QoS {
		for _, retain := range []bool{false, true} {
			err := b.send(p, "must not", "x", q, retain)
			if q > 0 && err == nil {
				b.Logf("QoS %d: the publisher is told nothing", q)
			}
			b.refusal(fmt.Sprintf("a forbidden publish at QoS %d", q), err, bridge.NotAuthorized)
			if err != nil {
				p = b.redial(p, fmt.Sprintf("p%d%v", i, retain))
			}
			marker := fmt.Sprintf("marker %d %v", q, retain)
			if err := b.send(p, "may/marker", marker, b.topQoS(), false); err != nil {
				// A refusal at QoS 0 can only be a closed connection.
				p = b.redial(p, fmt.Sprintf("q%d%v", i, retain))
				b.mustSend(p, "may/marker", marker, b.topQoS())
			}
			b.expectRecorded(r, "may/marker", marker)
		}
	}
	if b.local.RetainedValue("must not") != nil {
		b.Error("a forbidden message was retained")
	}
	want := uint64(2 * len(b.ep.QoS))
	b.eventually("each refusal is counted", func() bool { return b.stats().Dropped[bridge.DropRefused] == want })

	err := b.trySubscribe(p, Subscription{Filter: "must not/#", QoS: b.topQoS()})
	if err == nil {
		b.Error("a forbidden subscription was confirmed")
	}
	b.refusal("a forbidden subscription", err, bridge.NotAuthorized)
	p = b.redial(p, "s")
	b.subscribe(p, "#", b.topQoS()) // allowed in part
	b.publish("must not", "secret", b.topQoS(), true)
	b.publish("may/read", "public", b.topQoS(), true)
	b.expect(p, "may/read", "public")
	if b.ep.Retained {
		late := b.dial("late")
		b.subscribe(late, "#", b.topQoS())
		b.expect(late, "may/read", "public")
		b.publish("may/end", "", b.topQoS(), false)
		b.expect(late, "may/end", "")
	}
}

func checkPassword(b *bench) {
	for _, o := range []DialOptions{{ID: "p", User: user, Password: "wrong"}, {ID: "p", User: "nobody", Password: password}} {
		p, err := b.tryDial(o)
		if err == nil {
			b.Errorf("%s got in with password %q", o.User, o.Password)
			_ = p.Close()
		}
	}
	b.eventually("refused connections are counted", func() bool { return b.stats().Refused == 2 })
	b.eventually("nobody is attached", func() bool { return b.clients() == 0 && b.stats().Connections == 0 })
}

func checkRevoked(b *bench) {
	r := b.record("#")
	p := b.dial("p")
	b.subscribe(p, "t/#", b.topQoS())
	b.mustSend(p, "t/1", "allowed", b.topQoS())
	b.expectRecorded(r, "t/1", "allowed")
	b.expect(p, "t/1", "allowed")

	rules := rulesFor("may/#")
	b.hub.SetAccess(rules)
	b.publish("t/2", "not for p any more", b.topQoS(), false)
	b.expectRecorded(r, "t/2", "not for p any more")
	err := b.send(p, "t/1", "forbidden now", b.topQoS(), false)
	b.refusal("a publish after its right was revoked", err, bridge.NotAuthorized)
	if err != nil {
		var told *Refused
		if !errors.As(err, &told) {
			p = b.redial(p, "q")
		}
	}
	b.mustSend(p, "may/marker", "marker", b.topQoS())
	b.expectRecorded(r, "may/marker", "marker")

	// A user that is gone does not stay.
	b.hub.SetAccess(Rules{local: rules[local]})
	b.expectEnd(p, "its user was removed")
}

func checkMalformed(b *bench) {
	r := b.record("#")
	p := b.dial("p")
	for i, topic := range []string{"a/+", "#", "a\x00b", "bad\xff", strings.Repeat("x/", 500)} {
		err := b.send(p, topic, "x", b.topQoS(), false)
		b.refusal(fmt.Sprintf("publishing to %.20q", topic), err, bridge.BadTopic)
		if err != nil {
			p = b.redial(p, fmt.Sprintf("p%d", i))
		}
	}
	for i, filter := range []string{"a#", "#/a", "a+/b", "$share/g", "bad\xff"} {
		err := b.trySubscribe(p, Subscription{Filter: filter, QoS: b.topQoS()})
		if err == nil {
			b.Errorf("a subscription to %q was confirmed", filter)
		}
		b.refusal(fmt.Sprintf("subscribing to %q", filter), err, bridge.BadFilter)
		p = b.redial(p, fmt.Sprintf("s%d", i))
	}
	b.mustSend(p, "marker", "alive", b.topQoS())
	b.expectRecorded(r, "marker", "alive")
}

func checkOversize(b *bench) {
	r := b.record("#")
	p := b.dial("p")
	for i, q := range b.ep.QoS {
		for _, n := range []int{b.ep.MaxPayload + 1, 4 * b.ep.MaxPayload} {
			_ = b.send(p, "large/"+strings.Repeat("x", 250), strings.Repeat("x", n), q, false)
			p = b.redial(p, fmt.Sprintf("p%d-%d", i, n))
		}
	}
	b.mustSend(p, "marker", "alive", b.topQoS())
	b.expectRecorded(r, "marker", "alive")
}
