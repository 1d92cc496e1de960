package cli

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/mqttclient"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

func newPubCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "pub URL [MESSAGE]",
		Short: "Publish messages to an MQTT server",
		Long: `Publish to an MQTT server. The flags are those of mosquitto_pub. The URL is mqtt://HOST or mqtts://HOST,
with user:password@ and a port if needed; what follows the host is the topic, unless -t names one.`,
		Example: `  isthmus pub mqtt://localhost/plant/temperature 21.5
  isthmus pub mqtts://user:secret@host -t plant/log -q 1 -l < log.txt
  isthmus pub mqtt://localhost/config -r -f config.json -D 'publish content-type application/json'`,
		Args: cobra.RangeArgs(1, 2),
	}
	p := &pub{env: env, client: clientFlags(cmd)}
	f := cmd.Flags()
	f.StringVarP(&p.topic, "topic", "t", "", "`TOPIC` to publish to; default: the path of the URL")
	f.StringVarP(&p.message, "message", "m", "", "the `MESSAGE`; the second argument does the same")
	f.StringVarP(&p.file, "file", "f", "", "publish the contents of `FILE`")
	f.BoolVarP(&p.lines, "stdin-line", "l", false, "publish each line of standard input as a message")
	f.BoolVarP(&p.stdin, "stdin-file", "s", false, "publish standard input as one message")
	f.BoolVarP(&p.null, "null-message", "n", false, "publish an empty message")
	f.Uint8VarP(&p.qos, "qos", "q", 0, "quality of service: 0, 1 or 2")
	f.BoolVarP(&p.retain, "retain", "r", false, "ask the server to retain the message")
	_ = cmd.MarkFlagFilename("file")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		given := cmd.Flags().Changed("message")
		if len(args) == 2 {
			if given {
				return usagef("the message is given twice: as an argument and with -m")
			}
			given, p.message = true, args[1]
		}
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		return p.run(ctx, args[0], given)
	}
	return cmd
}

// pub is one call of the command.
type pub struct {
	env    *Env
	client *clientOptions

	topic, message, file string
	lines, stdin, null   bool
	qos                  byte
	retain               bool
	mu                   sync.Mutex
	failed, unheard      int
	first                error // of those that failed
}

func (p *pub) run(ctx context.Context, url string, given bool) error {
	sources := 0
	for _, set := range []bool{given, p.file != "", p.lines, p.stdin, p.null} {
		if set {
			sources++
		}
	}
	switch {
	case sources == 0:
		return withHint(usagef("no message"), "name it behind the URL or with -m, -f FILE, -l, -s or -n")
	case sources > 1:
		return usagef("only one of MESSAGE, -m, -f, -l, -s and -n can be given")
	case p.qos > 2:
		return usagef("QoS is %d, want 0, 1 or 2", p.qos)
	}
	cfg, topic, err := p.client.config(url)
	if err != nil {
		return err
	}
	if p.topic == "" {
		p.topic = topic
	}
	if p.topic == "" {
		return withHint(usagef("no topic"), "name it with -t or as the path of the URL: mqtt://HOST/TOPIC")
	}
	var payload []byte
	switch {
	case p.file != "":
		payload, err = os.ReadFile(p.file)
	case p.stdin:
		payload, err = io.ReadAll(p.env.Stdin)
	case given:
		payload = []byte(p.message)
	}
	if err != nil {
		return fmt.Errorf("reading the message: %w", err)
	}
	c, err := p.client.dial(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.Close()
	if p.lines {
		err = p.publishLines(ctx, c)
	} else {
		err = p.publish(ctx, c, payload)
	}
	if ctx.Err() != nil {
		return errors.New("interrupted: what was on its way may have arrived or not")
	}
	if err != nil {
		return explainClient(err, p.topic)
	}
	if p.unheard > 0 {
		p.env.Notef("nobody is subscribed to %q", p.topic)
	}
	return explainClient(c.Disconnect(ctx, 0, p.client.props["disconnect"]), p.topic)
}

func (p *pub) publication(payload []byte) mqttclient.Publication {
	return mqttclient.Publication{Topic: p.topic, Payload: payload, QoS: p.qos, Retain: p.retain, Props: p.client.props["publish"]}
}

func (p *pub) publish(ctx context.Context, c *mqttclient.Client, payload []byte) error {
	code, err := c.Publish(ctx, p.publication(payload))
	p.note(code, nil)
	return err
}

// publishLines publishes lines as they come, several at a time on their way, and waits for the last acknowledgement.
func (p *pub) publishLines(ctx context.Context, c *mqttclient.Client) error {
	in := bufio.NewReaderSize(p.env.Stdin, 64<<10)
	var onTheWay sync.WaitGroup
	for {
		line, readErr := in.ReadBytes('\n')
		if readErr == nil || len(line) > 0 {
			line = bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r"))
			onTheWay.Add(1)
			err := c.PublishAsync(ctx, p.publication(line), func(code wire.Code, err error) {
				p.note(code, err)
				onTheWay.Done()
			})
			if err != nil {
				onTheWay.Done()
				return err
			}
		}
		if readErr == io.EOF {
			break
		}
		if readErr != nil {
			return fmt.Errorf("reading lines: %w", readErr)
		}
	}
	stop := context.AfterFunc(ctx, c.Close)
	onTheWay.Wait()
	if !stop() {
		return ctx.Err()
	}
	if p.failed > 1 {
		p.env.Notef("%d messages were not published; the first:", p.failed)
	}
	return p.first
}

// note counts an outcome.
func (p *pub) note(code wire.Code, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed++
		if p.first == nil {
			p.first = err
		}
	}
	if code == 0x10 {
		p.unheard++
	}
}

// clientOptions are the flags that pub and sub have in common.
type clientOptions struct {
	cmd                       *cobra.Command
	id, user, password        string
	version                   string
	keepSession               bool
	sessionExpiry             uint32
	keepAlive                 uint16
	caFile, certFile, keyFile string
	insecure                  bool
	willTopic, willPayload    string
	willQoS                   byte
	willRetain                bool
	properties                []string
	props                     map[string]wire.Props // of the packets named
}

// clientFlags adds the flags.
func clientFlags(cmd *cobra.Command) *clientOptions {
	o := &clientOptions{cmd: cmd}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&o.id, "id", "i", "", "client `ID`; default: the server assigns one")
	f.StringVarP(&o.user, "username", "u", "", "user `NAME`")
	f.StringVarP(&o.password, "pw", "P", "", "`PASSWORD`")
	f.StringVarP(&o.version, "protocol-version", "V", "5", "`VERSION` of MQTT: 3.1, 3.1.1 or 5 (mqttv31, mqttv311, mqttv5)")
	f.BoolVarP(&o.keepSession, "disable-clean-session", "c", false, "keep the session across connections; needs -i")
	f.Uint32VarP(&o.sessionExpiry, "session-expiry-interval", "x", 0, "`SECONDS` for which the server keeps the session (MQTT 5)")
	f.Uint16VarP(&o.keepAlive, "keepalive", "k", 60, "`SECONDS` between signs of life")
	f.StringVar(&o.caFile, "cafile", "", "certificates of authorities to trust, instead of the system's")
	f.StringVar(&o.certFile, "cert", "", "own certificate")
	f.StringVar(&o.keyFile, "key", "", "key of the own certificate")
	f.BoolVar(&o.insecure, "insecure", false, "do not check the server's certificate; for tests only")
	f.StringVar(&o.willTopic, "will-topic", "", "`TOPIC` of the will")
	f.StringVar(&o.willPayload, "will-payload", "", "`MESSAGE` of the will")
	f.Uint8Var(&o.willQoS, "will-qos", 0, "QoS of the will")
	f.BoolVar(&o.willRetain, "will-retain", false, "ask the server to retain the will")
	f.StringArrayVarP(&o.properties, "property", "D", nil,
		"a property in MQTT 5, as one argument: `'PACKET NAME VALUE'`, for example 'publish content-type text/plain' or 'connect user-property NAME VALUE'")
	for _, name := range []string{"cafile", "cert", "key"} {
		_ = cmd.MarkFlagFilename(name, "pem", "crt", "key")
	}
	_ = cmd.RegisterFlagCompletionFunc("protocol-version", cobra.FixedCompletions([]string{"3.1", "3.1.1", "5"}, cobra.ShellCompDirectiveNoFileComp))
	return o
}

// config puts URL and flags together. It returns the topic of the URL too.
func (o *clientOptions) config(url string) (mqttclient.Config, string, error) {
	fail := func(err error) (mqttclient.Config, string, error) {
		return mqttclient.Config{}, "", &usageError{err}
	}
	u, err := mqttclient.ParseURL(url)
	if err != nil {
		return fail(withHint(err, "a URL looks like mqtt://localhost:1883 or mqtts://user:password@host/topic"))
	}
	version, err := wire.ParseVersion(o.version)
	if err != nil {
		return fail(err)
	}
	if err := o.parseProperties(); err != nil {
		return fail(err)
	}
	if o.keepSession && o.id == "" {
		return fail(withHint(errors.New("-c keeps a session, and a session needs a name"), "name it with -i"))
	}
	cfg := mqttclient.Config{
		URL: url, Version: version, ClientID: o.id, KeepSession: o.keepSession, User: o.user, Props: o.props["connect"],
		KeepAlive: time.Duration(o.keepAlive) * time.Second,
	}
	if o.password != "" {
		cfg.Password = []byte(o.password)
	}
	if o.keepAlive == 0 {
		cfg.KeepAlive = -1
	}
	if version == wire.V31 && cfg.ClientID == "" {
		cfg.ClientID = "isthmus-" + rand.Text()[:12]
	}
	if o.cmd.Flags().Changed("session-expiry-interval") {
		cfg.Props = append(cfg.Props, wire.SessionExpiry.Int(o.sessionExpiry))
	}
	if o.willTopic != "" {
		cfg.Will = &wire.Will{Topic: o.willTopic, Payload: []byte(o.willPayload), QoS: o.willQoS, Retain: o.willRetain, Props: o.props["will"]}
	} else if o.willPayload != "" || o.willQoS > 0 || o.willRetain || o.props["will"] != nil {
		return fail(withHint(errors.New("a will without a topic"), "name it with --will-topic"))
	}
	if version < wire.V5 && len(o.properties) > 0 {
		return fail(fmt.Errorf("-D needs MQTT 5, -V is %s", o.version))
	}
	if version < wire.V5 && len(cfg.Props) > 0 {
		return fail(fmt.Errorf("-x needs MQTT 5, -V is %s", o.version))
	}
	if cfg.TLS, err = o.tls(); err != nil {
		return mqttclient.Config{}, "", err
	}
	check := cfg
	if check.User == "" {
		check.User = u.User
	}
	if err := check.Validate(); err != nil {
		return fail(err)
	}
	return cfg, u.Topic, nil
}

// tls makes the TLS configuration that the flags ask for; nil: the defaults.
func (o *clientOptions) tls() (*tls.Config, error) {
	cfg := &tls.Config{InsecureSkipVerify: o.insecure}
	if o.caFile != "" {
		pem, err := os.ReadFile(o.caFile)
		if err != nil {
			return nil, fmt.Errorf("reading --cafile: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", o.caFile)
		}
	}
	if (o.certFile == "") != (o.keyFile == "") {
		return nil, usagef("--cert and --key go together")
	}
	if o.certFile != "" {
		pair, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		if err != nil {
			return nil, fmt.Errorf("reading --cert and --key: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// parseProperties reads the values of -D.
func (o *clientOptions) parseProperties() error {
	packets := []string{"connect", "publish", "subscribe", "unsubscribe", "disconnect", "auth", "will"}
	o.props = make(map[string]wire.Props)
	for _, text := range o.properties {
		packet, rest, _ := strings.Cut(strings.TrimSpace(text), " ")
		name, value, ok := strings.Cut(strings.TrimSpace(rest), " ")
		if !ok {
			return withHint(fmt.Errorf("-D %q is not a packet, a property and a value", text), "quote it: -D 'publish content-type text/plain'")
		}
		known := false
		for _, p := range packets {
			known = known || p == packet
		}
		if !known {
			return fmt.Errorf("-D %q: packet %q is unknown, want one of %s", text, packet, strings.Join(packets, ", "))
		}
		p, err := parseProperty(name, value)
		if err != nil {
			return fmt.Errorf("-D %q: %w", text, err)
		}
		o.props[packet] = append(o.props[packet], p)
	}
	return nil
}

func parseProperty(name, value string) (wire.Property, error) {
	for _, id := range wire.IDs() {
		known, kind := id.Describe()
		if known != name {
			continue
		}
		bits := map[wire.Kind]int{wire.KindByte: 8, wire.KindUint16: 16, wire.KindUint32: 32, wire.KindVarint: 28}[kind]
		switch kind {
		case wire.KindString:
			return id.Text(value), nil
		case wire.KindBinary:
			return id.Bytes([]byte(value)), nil
		case wire.KindPair:
			name, value, ok := strings.Cut(value, " ")
			if !ok {
				return wire.Property{}, errors.New("a user property has a name and a value")
			}
			return wire.User(name, value), nil
		}
		n, err := strconv.ParseUint(value, 10, bits)
		if err != nil {
			return wire.Property{}, fmt.Errorf("%q is not a number of %d bits", value, bits)
		}
		return id.Int(uint32(n)), nil
	}
	return wire.Property{}, fmt.Errorf("property %q is unknown", name)
}

// connectTimeout bounds dialling and the CONNECT.
const connectTimeout = 30 * time.Second

// dial connects.
func (o *clientOptions) dial(ctx context.Context, cfg mqttclient.Config) (*mqttclient.Client, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, connectTimeout, errors.New("the server did not answer in time"))
	defer cancel()
	c, err := mqttclient.Dial(ctx, cfg)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
		err = fmt.Errorf("connecting: %w", context.Cause(ctx))
	}
	return c, explainClient(err, "")
}

// explainClient adds what to do next to an error of the client.
func explainClient(err error, topic string) error {
	if err == nil {
		return nil
	}
	var (
		refused   *mqttclient.Refused
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
		hint      string
	)
	switch {
	case errors.As(err, &refused) && refused.Packet == wire.CONNACK:
		hint = connackHint(refused)
	case errors.As(err, &refused) && refused.Code == 0x87, errors.As(err, &refused) && refused.Version < wire.V5:
		if refused.Filter != "" {
			topic = refused.Filter
		}
		hint = "the server's access rules forbid it; on an Isthmus, isthmus explain " + strconv.Quote(topic) + " names the rule"
	case errors.Is(err, syscall.ECONNREFUSED):
		hint = "nothing listens there: check host and port, or start a server with isthmus serve"
	case errors.As(err, &authority):
		hint = "name the server's authority with --cafile FILE"
	case errors.As(err, &host):
		hint = "use the name in the server's certificate, or --insecure for a test"
	}
	if hint == "" {
		return err
	}
	return withHint(err, hint)
}

// connackHint says what may help against a refused CONNECT.
func connackHint(r *mqttclient.Refused) string {
	switch {
	case r.Version < wire.V5 && (r.Code == 4 || r.Code == 5), r.Code == 0x86, r.Code == 0x87:
		return "name the user with -u NAME -P PASSWORD, or in the URL: mqtt://NAME:PASSWORD@HOST"
	case r.Version < wire.V5 && r.Code == 1, r.Code == 0x84, r.Version >= wire.V5 && r.Code == 1:
		return "the server speaks another version of MQTT: try -V 3.1.1"
	case r.Version < wire.V5 && r.Code == 2, r.Code == 0x85:
		return "choose another client id with -i"
	}
	return ""
}
