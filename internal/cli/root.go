// Package cli is the command line of Isthmus: one file per command, each built by a function, no globals. Results go to
// standard output, everything else to standard error as "isthmus: ..."; exit codes are 0 done, 1 failed, 2 wrong usage.
package cli

import (
	"context"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Main runs the command line and returns the exit code.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	env := &Env{Stdin: stdin, Stdout: stdout, Stderr: stderr}
	root := newRootCommand(env)
	root.SetArgs(args)
	err := root.ExecuteContext(context.Background())
	if err != nil {
		env.report(err)
	}
	return exitCode(err)
}

// newRootCommand puts the commands together.
func newRootCommand(env *Env) *cobra.Command {
	root := &cobra.Command{
		Use:           "isthmus",
		Short:         "Gateway and broker that joins constrained devices to everything else",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return unknownCommand(cmd, args[0])
		},
	}
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return withHint(&usageError{err}, "isthmus "+strings.TrimPrefix(cmd.CommandPath()+" --help", "isthmus ")+" shows how it is used")
	})
	root.AddGroup(
		&cobra.Group{ID: groupServer, Title: "The gateway:"},
		&cobra.Group{ID: groupAsk, Title: "Ask a running gateway:"},
		&cobra.Group{ID: groupClient, Title: "Be a client:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupServer, newServeCommand(env), newInitCommand(env), newCheckCommand(env), newConfigCommand(env), newPasswdCommand(env), newStoreCommand(env))
	add(groupAsk, newStatusCommand(env), newExplainCommand(env), newReloadCommand(env), newHealthcheckCommand(env))
	add(groupClient, newPubCommand(env), newSubCommand(env), newBenchCommand(env))
	root.AddCommand(newVersionCommand(env))
	for _, c := range root.Commands() {
		strictUsage(c)
	}
	return root
}

// The groups of commands in the help text.
const (
	groupServer = "server"
	groupAsk    = "ask"
	groupClient = "client"
)

// unknownCommand says so and names what was probably meant.
func unknownCommand(cmd *cobra.Command, name string) error {
	err := usagef("there is no command %q", name)
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return withHint(err, "did you mean "+strings.Join(near, " or ")+"?")
	}
	return withHint(err, "isthmus help lists the commands")
}

// strictUsage makes every complaint of cobra about arguments a usage error.
func strictUsage(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return withHint(&usageError{err}, "usage: "+cmd.UseLine())
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		strictUsage(sub)
	}
}
