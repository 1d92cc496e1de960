package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/app"
	"github.com/isthmus-iot/isthmus/internal/ops"
	"github.com/isthmus-iot/isthmus/internal/store"
)

func newStoreCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "store check|export",
		Short: "Check or export what a gateway keeps, while it is stopped",
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return withHint(usagef("say what to do with the store"), cmd.CommandPath()+" check or export")
			}
			return unknownCommand(cmd, args[0])
		},
	}
	cmd.AddCommand(newStoreCheckCommand(env), newStoreExportCommand(env))
	return cmd
}

func newStoreCheckCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check [-c FILE | --data DIR]",
		Short: "Find out whether the store is damaged",
		Long: `Read everything that is in the store of a configuration, or of a data directory, and say what is wrong
with it. Nothing is changed. The gateway must be stopped. Exit code 0: all is well; 1: it is damaged or
cannot be read.`,
		Args: cobra.NoArgs,
	}
	find, form := storeFlags(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := find(cmd.Context())
		if err != nil {
			return err
		}
		report, err := store.Check(dir)
		if err != nil {
			return err
		}
		if *form == "json" {
			return storeProblemsJSON(env, report)
		}
		for _, p := range report.Problems {
			env.Notef("%s", p)
		}
		switch n := len(report.Problems) + report.More; n {
		case 0:
			env.Printf("%s is fine: %d records\n", dir, report.Records)
			return nil
		case 1:
			err = fmt.Errorf("the store %s is damaged", dir)
		default:
			err = fmt.Errorf("the store %s is damaged: %d problems", dir, n)
		}
		return withHint(err, "restore a copy, or move the folder away to begin with an empty store",
			program()+" store export prints what can be read")
	}
	return cmd
}

// storeProblemsJSON writes the problems for programs.
func storeProblemsJSON(env *Env, report store.Report) error {
	type problem struct {
		File string `json:"file,omitempty"`
		Key  string `json:"key,omitempty"`
		Text string `json:"text"`
	}
	found := []problem{}
	for _, p := range report.Problems {
		found = append(found, problem(p))
	}
	if err := env.printJSON(found); err != nil {
		return err
	}
	if len(found) > 0 {
		return errSilent
	}
	return nil
}

func newStoreExportCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export [-c FILE | --data DIR]",
		Short: "Print sessions, queues and retained values as JSON lines",
		Long: `Print what is in the store of a configuration, or of a data directory, one JSON object on a line. Its
kind says what it is: session, subscription, queued, inflight, received, retained, or damaged for what
cannot be read. A payload that is not text is payload_base64. Nothing is changed. The gateway must be
stopped.`,
		Args: cobra.NoArgs,
	}
	find := storeFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		dir, err := find(cmd.Context())
		if err != nil {
			return err
		}
		return store.Export(dir, env.Stdout)
	}
	return cmd
}

// storeFlags adds the flags that name a store; the result finds it.
func storeFlags(cmd *cobra.Command) (find func(context.Context) (dir string, err error)) {
	file := configFlag(cmd)
	data := cmd.Flags().String("data", "", "data directory `DIR`, instead of the one that the configuration names")
	_ = cmd.MarkFlagDirname("data")
	return func(ctx context.Context) (string, error) {
		switch {
		case *data != "" && cmd.Flags().Changed("config"):
			return "", usagef("want -c or --data, not both")
		case *data != "":
			return storeIn(ctx, *data)
		}
		data, err := app.DataDir(*file)
		if err != nil {
			return "", err
		}
		return storeIn(ctx, data)
	}
}

// storeIn is the store of a data directory, which no gateway must be using.
func storeIn(ctx context.Context, data string) (string, error) {
	dir := app.StoreDir(data)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return "", withHint(fmt.Errorf("there is no store in %s", data),
			"name a configuration with -c, or with --data the directory that has the folder "+filepath.Base(dir))
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	if s, err := ops.NewClient(filepath.Join(data, ops.SocketName)).Status(ctx); err == nil {
		return "", withHint(fmt.Errorf("gateway %s, process %d, is using %s", s.ID, s.Process, dir),
			"stop it first, or copy the data directory from a snapshot of the file system and name the copy with --data")
	}
	return dir, nil
}

// askTimeout is how long a gateway that may be there has to answer.
const askTimeout = 2 * time.Second
