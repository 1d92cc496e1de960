package cli

import (
	"encoding/json"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/bench"
	"github.com/isthmus-iot/isthmus/internal/mqttclient"
	"github.com/isthmus-iot/isthmus/internal/mqttclient/wire"
)

func newBenchCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench URL...",
		Short: "Load MQTT servers and measure what a message costs them",
		Long: `Load MQTT servers in a closed loop: a publisher is at most --window messages ahead of what its slowest
subscriber has received, every message is numbered, and lost, duplicated and reordered ones are counted.
With several URLs the servers take turns, --rounds times. A URL may be NAME=URL and may end in @@PID:
then the CPU time of that process per delivered message and its memory are measured too.

Modes:
  pair      N publishers, each with a subscriber of its own
  fan-out   one publisher, N subscribers
  fan-in    N publishers, one subscriber
  idle      N connections with one subscription each, held for --duration; memory per connection
  connect   N at a time connect and leave
  latency   pairs at a fixed --rate; latency counts from when a message was due
  offline   N publishers at QoS 1, each to a session whose client is away; acknowledgements are measured`,
		Example: `  isthmus bench mqtt://localhost --clients 100 --qos 1 --pid $(pidof mosquitto)
  isthmus bench mqtt://localhost --mode latency --rate 5000 --duration 30s
  isthmus bench a=mqtt://localhost:1883@@101 b=mqtt://localhost:1884@@102 --mode fan-out --rounds 5 --row 'fan-out'`,
		Args: cobra.MinimumNArgs(1),
	}
	var (
		cfg              bench.Config
		mode, version    string
		pids             []int
		rounds           int
		row, base        string
		asJSON, insecure bool
		client           clientOptions
	)
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&mode, "mode", "pair", "pair, fan-out, fan-in, idle, connect, latency or offline")
	f.IntVar(&cfg.Clients, "clients", 100, "N")
	f.Uint8Var(&cfg.QoS, "qos", 0, "quality of service: 0, 1 or 2")
	f.IntVar(&cfg.Size, "size", 64, "`BYTES` of payload")
	f.DurationVar(&cfg.Duration, "duration", 10*time.Second, "how long to measure")
	f.Int64Var(&cfg.Messages, "messages", 0, "measure so many deliveries instead")
	f.DurationVar(&cfg.Warmup, "warmup", time.Second, "how long to run before measuring")
	f.IntVar(&cfg.Window, "window", 0, "messages in flight per publisher; default 16 or --batch")
	f.IntVar(&cfg.Batch, "batch", 1, "messages per write")
	f.IntVar(&cfg.Rate, "rate", 0, "messages per second of all publishers: in mode latency, default 1000; in mode offline, default as fast as they are acknowledged")
	f.StringVar(&version, "version", "3.1.1", "of MQTT: 3.1.1 or 5")
	f.IntVar(&cfg.Bystanders, "bystanders", 0, "extra subscriptions that no message matches")
	f.IntSliceVar(&pids, "pid", nil, "process of the server, of the first URL first")
	f.IntVar(&rounds, "rounds", 1, "how often each server has its turn")
	f.StringVar(&row, "row", "", "print one row of a table with this `LABEL` instead: the median of the rounds for each server")
	f.StringVar(&base, "base", "", "`NAME` of the server that the row's ratios refer to; default: the first")
	f.BoolVar(&asJSON, "json", false, "print each result as a line of JSON")
	f.StringVar(&client.caFile, "cafile", "", "certificates of authorities to trust, instead of the system's")
	f.BoolVar(&insecure, "insecure", false, "do not check the server's certificate")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
		defer stop()
		var err error
		cfg.Mode = bench.Mode(mode)
		if cfg.Version, err = wire.ParseVersion(version); err != nil {
			return &usageError{err}
		}
		if err := cfg.Validate(); err != nil {
			return &usageError{err}
		}
		client.insecure = insecure
		if cfg.TLS, err = client.tls(); err != nil {
			return err
		}
		targets, first := make([]bench.Target, len(args)), 0
		for i, arg := range args {
			if targets[i], err = bench.ParseTarget(arg); err != nil {
				return &usageError{err}
			}
			if _, err := mqttclient.ParseURL(targets[i].URL); err != nil {
				return withHint(&usageError{err}, "a URL looks like mqtt://localhost:1883")
			}
			if i < len(pids) {
				targets[i].PID = pids[i]
			}
			if base != "" && targets[i].Name == base {
				first = i
			}
		}
		clean := true
		all, err := bench.Compare(ctx, targets, rounds, cfg, func(r *bench.Result) {
			clean = clean && r.Clean()
			switch {
			case asJSON:
				_ = json.NewEncoder(env.Stdout).Encode(r)
			case row == "":
				r.WriteText(env.Stdout)
			default:
				r.WriteText(env.Stderr)
			}
		})
		if err != nil {
			return explainClient(err, "")
		}
		if row != "" {
			bench.WriteRow(env.Stdout, row, all, first)
		}
		if !clean {
			env.Notef("messages were lost, duplicated, reordered or refused")
			return errSilent
		}
		return nil
	}
	return cmd
}
