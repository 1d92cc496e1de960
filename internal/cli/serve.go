package cli

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/app"
)

func newServeCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the gateway",
		Long: `Run the gateway until SIGINT or SIGTERM; a second one ends it at once. SIGHUP reloads the
configuration, all of it or nothing. Without a configuration only this machine can connect.`,
		Args: cobra.NoArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		config, err := app.Load(*file)
		if err != nil {
			return err
		}
		gateway, err := app.New(config, app.NewLogger(env.Stderr, Terminal(env.Stderr), config.Log))
		if err != nil {
			return err
		}
		return serve(cmd.Context(), env, gateway, config)
	}
	return cmd
}

// serve runs the gateway under the signals of the process.
func serve(ctx context.Context, env *Env, gateway *app.App, config *app.Config) error {
	ctx, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	over := make(chan struct{})
	defer close(over)
	defer signal.Stop(signals)
	wg.Go(func() {
		for stopping := false; ; {
			select {
			case s := <-signals:
				switch {
				case s == syscall.SIGHUP:
					// The outcome is in the log.
					_ = gateway.Reload(ctx)
				case stopping:
					env.Notef("a second signal: ending at once")
					os.Exit(exitFailed)
				default:
					stopping = true
					stop()
				}
			case <-over:
				return
			}
		}
	})
	wg.Go(func() {
		select {
		case <-gateway.Ready():
			introduce(env, gateway, config)
		case <-over:
		}
	})
	return gateway.Run(ctx)
}

// introduce tells people who have just started a gateway what is open, to whom, and what to try.
func introduce(env *Env, gateway *app.App, config *app.Config) {
	if config.File != "" && !Terminal(env.Stderr) {
		return // the log has it
	}
	var address string
	for _, l := range gateway.Status().Listeners {
		env.Notef("%s is open to %s", l.Address, l.Who)
		if address == "" && strings.HasPrefix(l.Address, "mqtt://") {
			address = l.Address
		}
	}
	if config.File != "" {
		return
	}
	_, port, _ := strings.Cut(strings.TrimPrefix(address, "mqtt://"), ":")
	env.Notef("try: %s sub %s -t 'demo/#' -v", program(), address)
	env.Notef("     %s pub %s -t demo/hello -m world -r", program(), address)
	env.Notef("     mosquitto_sub -p %s -t 'demo/#' -v", port)
	env.Notef("     mosquitto_pub -p %s -t demo/hello -m world -r", port)
	env.Notef("     %s explain demo/hello", program())
	env.Hintf("nothing is configured: %s init DIR writes a set-up with users and TLS for other machines to connect", program())
}
