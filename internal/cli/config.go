package cli

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/app"
)

func newConfigCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config default|show|schema",
		Short: "Show the defaults, a configuration in force, or the JSON Schema",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withHint(usagef("say what to show"), cmd.CommandPath()+" default, show or schema")
			}
			return unknownCommand(cmd, args[0])
		},
	}
	show := &cobra.Command{
		Use:   "show [-c FILE]",
		Short: "Show the configuration in force: defaults filled in, paths resolved, secrets masked",
		Args:  cobra.NoArgs,
	}
	file := configFlag(show)
	show.RunE = func(*cobra.Command, []string) error {
		c, err := app.Load(*file)
		if err != nil {
			return err
		}
		env.Printf("%s", c.Show())
		return nil
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "default",
			Short: "Show every key with its default and what it means",
			Args:  cobra.NoArgs,
			Run:   func(*cobra.Command, []string) { env.Printf("%s", app.DefaultYAML) },
		},
		show,
		&cobra.Command{
			Use:   "schema",
			Short: "Show the JSON Schema of the configuration, for editors",
			Args:  cobra.NoArgs,
			Run:   func(*cobra.Command, []string) { env.Printf("%s", app.Schema()) },
		},
	)
	return cmd
}
