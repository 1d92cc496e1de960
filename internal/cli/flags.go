package cli

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/isthmus-iot/isthmus/internal/app"
	"github.com/isthmus-iot/isthmus/internal/ops"
)

// configVariable is the environment variable that -c falls back to.
const configVariable = "ISTHMUS_CONFIG"

// configFlag adds -c.
func configFlag(cmd *cobra.Command) *string {
	file := cmd.Flags().StringP("config", "c", os.Getenv(configVariable), "configuration `FILE`; default: $"+configVariable)
	if f := cmd.Flags().Lookup("config"); f.DefValue != "" {
		f.DefValue = "" // help texts are the same on every machine
	}
	_ = cmd.MarkFlagFilename("config", "yaml", "yml")
	return file
}

// output is the form of a listing: text or json.
type output string

var _ pflag.Value = (*output)(nil)

// Set takes one of the forms.
func (o *output) Set(s string) error {
	if forms := []string{"text", "json"}; !slices.Contains(forms, s) {
		return fmt.Errorf("want one of %s", strings.Join(forms, ", "))
	}
	*o = output(s)
	return nil
}

// String is the form.
func (o *output) String() string { return string(*o) }

// Type is what help texts call the value.
func (*output) Type() string { return "FORM" }

// outputFlag adds -o.
func outputFlag(cmd *cobra.Command) *output {
	o := output("text")
	cmd.Flags().VarP(&o, "output", "o", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	return &o
}

// printJSON writes a result for programs.
func (e *Env) printJSON(v any) error {
	encoder := json.NewEncoder(e.Stdout)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(v)
}

// running makes a client for the gateway that runs with a configuration file, or without one in this directory.
func running(file string) (*ops.Client, error) {
	data, err := app.DataDir(file)
	if err != nil {
		return nil, err
	}
	return ops.NewClient(filepath.Join(data, ops.SocketName)), nil
}

// program is how the user calls this program, for commands to copy.
func program() string {
	switch name := os.Args[0]; {
	case strings.Contains(name, "go-build"):
		return "go run ."
	case strings.HasSuffix(name, ".test"):
		return "isthmus"
	default:
		return name
	}
}
