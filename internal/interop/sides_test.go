package interop

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// sides are a gateway and its neighbour, and who listens to everything on both.
type sides struct {
	here, there     mosquitto
	atHere, atThere *program
	round           int
}

// listen starts the listener of a side.
func (s *sides) listen(t *testing.T, m mosquitto, listener **program) {
	t.Helper()
	if *listener != nil {
		(*listener).kill()
	}
	*listener = m.sub(t, "-t", "#", "-q", "2")
}

// state checks what the gateway retains of the bridge.
func (s *sides) state(t *testing.T, want string) {
	t.Helper()
	if got := s.here.get(t, 1, "-t", state, "-q", "1")[0]; got != state+" 1 1 "+want {
		t.Errorf("the state of the bridge is %q, want %s", got, want)
	}
}

// connected waits until messages go both ways. A retained message also reaches a subscription that is not in place yet.
func (s *sides) connected(t *testing.T) {
	t.Helper()
	s.round++
	marker := fmt.Sprintf("marker/%d", s.round)
	s.here.pub(t, "-t", marker+"/here", "-q", "1", "-r", "-m", "x")
	s.atThere.after(t, message+marker+"/here ")
	s.there.pub(t, "-t", marker+"/there", "-q", "1", "-r", "-m", "x")
	s.atHere.after(t, message+marker+"/there ")
}

// exchange publishes on both sides and checks that each message arrives once on each side.
func (s *sides) exchange(t *testing.T) {
	t.Helper()
	s.round++
	round := fmt.Sprintf("round/%d", s.round)
	atHere, atThere := s.atHere.from(), s.atThere.from()
	var want []string
	for qos := range 3 {
		for name, side := range map[string]mosquitto{"here": s.here, "there": s.there} {
			topic := fmt.Sprintf("%s/%s/%d", round, name, qos)
			side.pubLines(t, "a\nb\nc\n", "-t", topic, "-q", fmt.Sprint(qos))
			for _, text := range []string{"a", "b", "c"} {
				want = append(want, fmt.Sprintf("%s %d 0 %s", topic, qos, text))
			}
		}
	}
	// What a side sent back would go before what is published later: after two laps it would have been here and there.
	for i := range 2 {
		lap := fmt.Sprintf("%s/lap/%d", round, i)
		for name, side := range map[string]mosquitto{"/here": s.here, "/there": s.there} {
			side.pub(t, "-t", lap+name, "-q", "2", "-m", "x")
			s.atHere.after(t, message+lap+name+" ")
			s.atThere.after(t, message+lap+name+" ")
		}
		want = append(want, lap+"/here 2 0 x", lap+"/there 2 0 x")
	}
	slices.Sort(want)
	for name, r := range map[string]*reader{"the gateway": atHere, "the neighbour": atThere} {
		// Other rounds have retained messages, which a bridge passes on again when it connects again.
		got := r.rest(message + round + "/")
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("at %s arrived\n%s\nwant\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}
}

// retains checks that a retained message is retained on the other side too, and cleared there.
func (s *sides) retains(t *testing.T) {
	t.Helper()
	for _, way := range []struct {
		name     string
		from, to mosquitto
		listener *program
	}{{"there", s.here, s.there, s.atThere}, {"here", s.there, s.here, s.atHere}} {
		topic := "retained/" + way.name
		way.from.pub(t, "-t", topic, "-q", "1", "-r", "-m", "kept")
		way.listener.wants(t, message+topic, " 1 0 kept")
		if got := way.to.get(t, 1, "-t", topic, "-q", "1")[0]; got != topic+" 1 1 kept" {
			t.Errorf("got %q", got)
		}
		way.from.pub(t, "-t", topic, "-q", "1", "-r", "-n")
		way.listener.wants(t, message+topic, " 1 0 ")
		late := way.to.sub(t, "-t", topic, "-q", "1")
		way.to.pub(t, "-t", topic, "-q", "1", "-m", "last")
		late.wants(t, message+topic, " 1 0 last")
		late.kill()
	}
}
