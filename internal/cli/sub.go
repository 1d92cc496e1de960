package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os/signal"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/bridge"
	"github.com/isthmus-iot/isthmus/internal/mqttclient"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

func newSubCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sub URL",
		Short: "Subscribe to an MQTT server and print what comes",
		Long: `Subscribe to an MQTT server and print each message's payload and a newline. The flags are those of
mosquitto_sub. The URL is mqtt://HOST or mqtts://HOST, with user:password@ and a port if needed; what
follows the host is a topic filter, -t names more. A connection that is lost is made again.

Exit code 27 says that -W ended it.`,
		Example: `  isthmus sub mqtt://localhost/plant/#
  isthmus sub mqtt://localhost -t plant/+/state -t alarms/# -q 1 -v
  isthmus sub mqtts://user:secret@host/config -C 1 -W 5
  isthmus sub mqtt://localhost/# -o json | jq .topic`,
		Args: cobra.ExactArgs(1),
	}
	s := &sub{env: env, client: clientFlags(cmd), pause: time.Second}
	f := cmd.Flags()
	f.StringArrayVarP(&s.filters, "topic", "t", nil, "topic `FILTER`; may be repeated")
	f.Uint8VarP(&s.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	f.IntVarP(&s.count, "count", "C", 0, "end after so many messages")
	f.Float64VarP(&s.timeout, "timeout", "W", 0, "end after so many `SECONDS`, with exit code 27")
	f.BoolVarP(&s.verbose, "verbose", "v", false, "print the topic before the payload")
	f.BoolVarP(&s.noNewline, "no-newline", "N", false, "print no newline after the payload")
	f.BoolVarP(&s.noRetained, "no-retained", "R", false, "print no retained messages")
	f.BoolVar(&s.noLocal, "no-local", false, "do not receive what this client publishes (MQTT 5)")
	f.BoolVar(&s.asPublished, "retain-as-published", false, "see the retain flag as it was published (MQTT 5)")
	s.form = outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return s.run(ctx, args[0])
	}
	return cmd
}

// sub is one call of the command.
type sub struct {
	env    *Env
	client *clientOptions
	form   *output
	pause  time.Duration // before the first new connection

	filters             []string
	qos                 byte
	count               int
	timeout             float64
	verbose, noNewline  bool
	noRetained, noLocal bool
	asPublished         bool
	printed             int
	subscribed          bool
}

// timeoutError is the end by -W. It has nothing to say but an exit code of its own, that of mosquitto_sub.
type timeoutError struct{}

func (timeoutError) Error() string { return "" }

// ExitCode is the exit code for the process.
func (timeoutError) ExitCode() int { return 27 }

// errCounted is the end by -C.
var errCounted = errors.New("all messages have come")

func (s *sub) run(ctx context.Context, url string) error {
	cfg, topic, err := s.client.config(url)
	if err != nil {
		return err
	}
	if topic != "" {
		s.filters = append([]string{topic}, s.filters...)
	}
	switch {
	case len(s.filters) == 0:
		return withHint(usagef("no topic filter"), "name it with -t or as the path of the URL: mqtt://HOST/FILTER")
	case s.qos > 2:
		return usagef("QoS is %d, want 0, 1 or 2", s.qos)
	case s.count < 0 || s.timeout < 0:
		return usagef("-C or -W is negative")
	case s.verbose && *s.form == "json":
		return usagef("-v and -o json exclude each other")
	}
	for _, f := range s.filters {
		if _, err := bridge.ParseFilter(f); err != nil {
			return usagef("topic filter %q: %w", f, err)
		}
	}
	if s.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, time.Duration(s.timeout*float64(time.Second)), timeoutError{})
		defer cancel()
	}
	cfg.ManualAck = true // a message is acknowledged when it has been printed
	cfg.Session = mqttclient.NewSession()
	err = s.stay(ctx, cfg)
	var timeout timeoutError
	switch {
	case errors.Is(err, errCounted):
		return nil
	case ctx.Err() != nil && errors.As(context.Cause(ctx), &timeout):
		return timeout
	case ctx.Err() != nil:
		return nil // interrupted: the way to end it
	}
	return err
}

// stay connects, and connects again when the connection is lost, until ctx ends, -C is reached or there is no point in it.
func (s *sub) stay(ctx context.Context, cfg mqttclient.Config) error {
	pause := s.pause
	for connected := false; ; {
		c, err := s.client.dial(ctx, cfg)
		if err == nil {
			connected, pause = true, s.pause
			err = s.receive(ctx, c)
			// Goodbye has its own time: ctx may have ended.
			bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
			_ = c.Disconnect(bye, 0, s.client.props["disconnect"])
			cancel()
		}
		if !connected || ctx.Err() != nil || hopeless(err) {
			return err
		}
		wait := pause/2 + rand.N(pause) // spread, so that many clients do not come back at once
		s.env.Notef("%v; connecting again in %v", err, wait.Round(time.Millisecond))
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		pause = min(2*pause, 30*time.Second)
	}
}

// printError is a failure of standard output.
type printError struct{ err error }

func (e *printError) Error() string { return "printing: " + e.err.Error() }
func (e *printError) Unwrap() error { return e.err }

// hopeless reports whether connecting again cannot help.
func hopeless(err error) bool {
	var (
		refused      *mqttclient.Refused
		disconnected *mqttclient.Disconnected
		print        *printError
	)
	switch {
	case errors.Is(err, errCounted), errors.As(err, &print):
		return true
	case errors.As(err, &disconnected):
		return disconnected.Code == 0x8E || disconnected.Code == 0x87 || disconnected.Code == 0x98 // taken over, no rights, an administrator
	case errors.As(err, &refused):
		return refused.Code != 0x88 && refused.Code != 0x89 && refused.Code != 0x97 && !(refused.Version < wire.V5 && refused.Code == 3)
	}
	return false
}

// receive subscribes and prints until the connection ends. A session that the server has kept holds the subscriptions of this
// call, but only after it has made them: what another call left there may be less.
func (s *sub) receive(ctx context.Context, c *mqttclient.Client) error {
	if !s.subscribed || !c.Server().SessionPresent {
		filters := make([]wire.Filter, len(s.filters))
		for i, f := range s.filters {
			filters[i] = wire.Filter{Filter: f, QoS: s.qos, NoLocal: s.noLocal, RetainAsPublished: s.asPublished}
		}
		if _, err := c.Subscribe(ctx, s.client.props["subscribe"], filters...); err != nil {
			return explainClient(err, "")
		}
		s.subscribed = true
	}
	for {
		m, err := c.Receive(ctx)
		if err != nil {
			return err
		}
		if !s.noRetained || !m.Retain {
			if _, err := s.env.Stdout.Write(s.format(m)); err != nil {
				return &printError{err}
			}
			s.printed++
		}
		m.Ack()
		if s.count > 0 && s.printed >= s.count {
			return errCounted
		}
	}
}

// format is a message as it is printed.
func (s *sub) format(m *mqttclient.Message) (b []byte) {
	if *s.form == "json" {
		return append(jsonMessage(m, time.Now()), '\n')
	}
	if s.verbose {
		b = append(append(b, m.Topic...), ' ')
	}
	b = append(b, m.Payload...)
	if !s.noNewline {
		b = append(b, '\n')
	}
	return b
}

// jsonMessage is a message as -o json prints it. A payload that is not text is given as base64 in its own field.
func jsonMessage(m *mqttclient.Message, now time.Time) []byte {
	type property struct {
		Name  string `json:"name"`
		Value any    `json:"value"`
	}
	out := struct {
		Time       time.Time      `json:"time"`
		Topic      string         `json:"topic"`
		QoS        byte           `json:"qos"`
		Retain     bool           `json:"retain"`
		Payload    *string        `json:"payload,omitempty"`
		Binary     []byte         `json:"payload_base64,omitempty"`
		Properties map[string]any `json:"properties,omitempty"`
		User       []property     `json:"user_properties,omitempty"`
	}{Time: now.UTC(), Topic: m.Topic, QoS: m.QoS, Retain: m.Retain}
	if utf8.Valid(m.Payload) {
		out.Payload = new(string(m.Payload))
	} else {
		out.Binary = m.Payload
	}
	for _, p := range m.Props {
		name, kind := p.ID.Describe()
		if kind == wire.KindPair {
			out.User = append(out.User, property{p.Name, p.Text})
			continue
		}
		if out.Properties == nil {
			out.Properties = make(map[string]any)
		}
		var value any = p.Int
		switch kind {
		case wire.KindString:
			value = p.Text
		case wire.KindBinary:
			value = p.Data
		case wire.KindVarint:
			value = m.Props.Ints(p.ID) // subscription identifiers: one for each subscription that matched
		}
		out.Properties[name] = value
	}
	b, err := json.Marshal(out)
	if err != nil {
		return fmt.Appendf(nil, `{"error":%q}`, err)
	}
	return b
}
