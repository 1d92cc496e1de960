package cli

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/app"
)

func newCheckCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Find what is wrong with a configuration and the files it names",
		Long: `Read a configuration with the users, rules and certificates it names, and say everything that is
wrong with them. Exit code 0: serve would start with it; 1: it would not.`,
		Args: cobra.NoArgs,
	}
	file, form := configFlag(cmd), outputFlag(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		if *file == "" {
			return withHint(usagef("no configuration is named"), program()+" check -c isthmus.yaml")
		}
		err := check(*file)
		if *form == "json" {
			return checkJSON(env, err)
		}
		if err == nil {
			env.Printf("%s is fine\n", *file)
		}
		return err
	}
	return cmd
}

// check does everything that serve does, but for opening sockets.
func check(file string) error {
	config, err := app.Load(file)
	if err != nil {
		return err
	}
	_, err = app.New(config, app.NewLogger(io.Discard, false, config.Log))
	return err
}

// checkJSON writes the problems for programs.
func checkJSON(env *Env, err error) error {
	type problem struct {
		File   string `json:"file,omitempty"`
		Line   int    `json:"line,omitempty"`
		Column int    `json:"column,omitempty"`
		Text   string `json:"text"`
		Hint   string `json:"hint,omitempty"`
	}
	found := []problem{}
	var problems app.Problems
	switch {
	case errors.As(err, &problems):
		for _, p := range problems {
			line, column := p.Place()
			found = append(found, problem{p.File, line, column, p.Text, p.Hint})
		}
	case err != nil:
		found = append(found, problem{Text: err.Error()})
	}
	if err := env.printJSON(found); err != nil {
		return err
	}
	if err != nil {
		return errSilent
	}
	return nil
}
