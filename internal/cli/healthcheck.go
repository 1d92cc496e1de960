package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newHealthcheckCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck [-c FILE]",
		Short: "Exit with 0 if a running gateway is ready, for containers without a shell",
		Args:  cobra.NoArgs,
	}
	file := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := running(*file)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), 5*time.Second)
		defer cancel()
		status, err := client.Status(ctx)
		if err != nil {
			return notRunning(err)
		}
		if status.Ready {
			env.Printf("ready\n")
			return nil
		}
		var waiting []string
		for _, p := range status.Parts {
			if p.Error != "" {
				waiting = append(waiting, p.Name+": "+p.Error)
			}
		}
		env.Notef("not ready: %s", strings.Join(waiting, ", "))
		return errSilent
	}
	return cmd
}
