package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/ops"
)

func newReloadCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reload [-c FILE]",
		Short: "Make a running gateway put its configuration file in force",
		Long: `Make the gateway that runs with a configuration read it again. All of it is put in force or nothing:
when something is wrong the old configuration stays, and exit code 1 says so. Listeners that stay
keep their clients.`,
		Args: cobra.NoArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := running(*file)
		if err != nil {
			return err
		}
		if err := client.Reload(cmd.Context()); err != nil {
			if errors.Is(err, ops.ErrNotRunning) {
				return notRunning(err)
			}
			env.Notef("the gateway did not reload; the configuration before it stays in force")
			return err
		}
		env.Printf("reloaded\n")
		return nil
	}
	return cmd
}

// notRunning says what to do when there is no gateway to ask.
func notRunning(err error) error {
	if errors.Is(err, ops.ErrNotRunning) {
		return withHint(err, "start one with "+program()+" serve, or name its configuration with -c")
	}
	return err
}
