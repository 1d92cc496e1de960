package bridge

import (
	"cmp"
	"fmt"
	"slices"
)

// Step is one line of an explanation: what one stage on a message's way would do with it.
type Step struct {
	Stage   string `json:"stage"`             // "topic", "acl", "mapping", "retained", "subscription", "shared", "result"
	Subject string `json:"subject,omitempty"` // whom it concerns: a client, a filter
	OK      bool   `json:"ok"`                // false: the message stops here
	Text    string `json:"text"`
}

// String is the step as a line for people.
func (s Step) String() string {
	mark := "ok  "
	if !s.OK {
		mark = "STOP"
	}
	if s.Subject != "" {
		return fmt.Sprintf("%s %-12s %s: %s", mark, s.Stage, s.Subject, s.Text)
	}
	return fmt.Sprintf("%s %-12s %s", mark, s.Stage, s.Text)
}

// Forecaster is a Sink that can say what Deliver would do.
type Forecaster interface {
	Forecast(m *Message, s *Subscription, qos QoS) (o Outcome, why string)
}

// Explain tells what would happen to m if the client published it; nothing is delivered. client may be attached or not;
// user is who it would be if it is not attached.
func (h *Hub) Explain(m *Message, client, user string) []Step {
	var steps []Step
	say := func(stage, subject string, ok bool, format string, args ...any) {
		steps = append(steps, Step{stage, subject, ok, fmt.Sprintf(format, args...)})
	}
	if err := h.checkTopic(m.Topic); err != nil {
		say("topic", "", false, "%v", err)
		return steps
	}
	say("topic", "", true, "%q has %d levels", m.Topic, Levels(m.Topic))

	var from *Client
	for _, c := range h.Clients() {
		if c.id == client && (from == nil || c.Endpoint() < from.Endpoint()) {
			from = c
		}
	}
	id := &Identity{User: user, ClientID: client}
	if from != nil {
		id = from.Identity()
	} else if p, ok := (*h.access.Load()).Permissions(id); ok {
		id.Permissions = p
	} else {
		id.Permissions = nothing{}
	}
	allowed, rule := id.Permissions.Explain(Write, string(m.Topic))
	if err := h.Admit(id, m.Topic); err != nil && allowed {
		allowed, rule = false, err.Error() // what no rule can grant
	}
	say("acl", describe(id), allowed, "write: %s", rule)
	if !allowed {
		return steps
	}
	say("mapping", "", true, "none")
	switch old := h.retained.get(string(m.Topic)); {
	case !m.Retain && old == nil:
		say("retained", "", true, "not retained, and nothing is retained here")
	case !m.Retain:
		say("retained", "", true, "not retained; a value of %d bytes is and stays", len(old.Payload))
	case len(m.Payload) == 0:
		say("retained", "", true, "removes the retained value")
	case old == nil:
		say("retained", "", true, "becomes the first retained value")
	default:
		say("retained", "", true, "replaces a retained value of %d bytes", len(old.Payload))
	}
	var plain []*Subscription
	n := 0
	for _, l := range h.table.match(string(m.Topic), nil) {
		plain = append(plain, l.plain.all()...)
		for _, g := range l.shared() {
			members := g.members.all()
			for _, s := range members {
				step := h.explainOne("shared", from, m, s)
				step.Text += fmt.Sprintf(", one of %d in group %q", len(members), g.name)
				steps = append(steps, step)
			}
			n += len(members)
		}
	}
	filters := make(map[*Client]int)
	for _, s := range plain {
		filters[s.owner]++
	}
	for _, s := range plain {
		step := h.explainOne("subscription", from, m, s)
		if k := filters[s.owner]; k > 1 {
			step.Text += fmt.Sprintf(", once for the client's %d matching filters, at the highest QoS", k)
		}
		steps = append(steps, step)
	}
	if n+len(plain) == 0 {
		say("result", "", true, "no subscription matches")
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return cmp.Compare(stageOrder(a.Stage), stageOrder(b.Stage)) })
	return steps
}

func stageOrder(stage string) int {
	return slices.Index([]string{"topic", "acl", "mapping", "retained", "subscription", "shared", "result"}, stage)
}

func describe(id *Identity) string {
	user := id.User
	if user == "" {
		user = "anonymous"
	}
	return fmt.Sprintf("client %q (%s)", id.ClientID, user)
}

func (h *Hub) explainOne(stage string, from *Client, m *Message, s *Subscription) Step {
	who := fmt.Sprintf("%s %q filter %q", s.owner.Endpoint(), s.owner.id, s.Filter)
	if s.Options.NoLocal && from != nil && s.owner == from {
		return Step{stage, who, false, "no local: it is the publisher"}
	}
	if allowed, rule := s.owner.Identity().Permissions.Explain(Read, string(m.Topic)); !allowed {
		return Step{stage, who, false, "read: " + rule}
	}
	qos := min(m.QoS, s.Options.QoS)
	outcome, why := Delivered, ""
	if f, ok := s.sink.(Forecaster); ok {
		outcome, why = f.Forecast(m, s, qos)
	}
	text := fmt.Sprintf("QoS %d, %s", qos, [...]string{"delivered", "queued", "not now", "dropped"}[outcome])
	if s.Options.Identifier != 0 {
		text += fmt.Sprintf(", identifier %d", s.Options.Identifier)
	}
	if why != "" {
		text += ": " + why
	}
	return Step{stage, who, outcome != Dropped, text}
}
