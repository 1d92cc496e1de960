package cli

import (
	"runtime"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/app"
)

func newVersionCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the version of this program",
		Args:  cobra.NoArgs,
	}
	form := outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *form == "json" {
			return env.printJSON(map[string]string{"version": app.Version(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH})
		}
		env.Printf("isthmus %s %s %s/%s\n", app.Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
		return nil
	}
	return cmd
}
