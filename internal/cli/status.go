package cli

import (
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/internal/ops"
)

func newStatusCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status [-c FILE]",
		Short: "Show what is open, to whom, and the counters",
		Args:  cobra.NoArgs,
	}
	file, form := configFlag(cmd), outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		client, err := running(*file)
		if err != nil {
			return err
		}
		status, err := client.Status(cmd.Context())
		if err != nil {
			return notRunning(err)
		}
		if *form == "json" {
			return env.printJSON(status)
		}
		return printStatus(env, status)
	}
	return cmd
}

func printStatus(env *Env, s ops.Status) error {
	w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }
	row("gateway", "%s, version %s, process %d, up %s", s.ID, s.Version, s.Process, time.Since(s.Started).Round(time.Second))
	if s.Config != "" {
		row("configuration", "%s", s.Config)
	}
	for _, p := range s.Parts {
		if p.Error != "" {
			row("not ready", "%s: %s", p.Name, p.Error)
		}
	}
	for _, l := range s.Listeners {
		row("open", "%s to %s", l.Address, l.Who)
	}
	row("hub", "%d clients, %d subscriptions, %d retained values of %d bytes", s.Hub.Clients, s.Hub.Subscriptions, s.Hub.Retained, s.Hub.RetainedBytes)
	if st := s.Store; st != nil {
		row("store", "%s in use, %s on disk, limit %s, %d messages queued, %d commits of %s", st.Used, st.Disk, st.Limit, st.Queued, st.Commits, average(st))
	}
	for _, e := range s.Endpoints {
		row(e.Name, "%d connections, %d sessions, %d messages queued, %d in flight", e.Connections, e.Sessions, e.Queued, e.Inflight)
		row("", "received %d messages, sent %d, refused %d connections", sum(e.Received), sum(e.Sent), e.Refused)
		if len(e.Dropped) > 0 {
			row("", "dropped %s", counts(e.Dropped))
		}
	}
	return w.Flush()
}

// average is how long a commit took.
func average(s *ops.Store) time.Duration {
	return (s.Syncing / time.Duration(max(1, s.Commits))).Round(10 * time.Microsecond)
}

func sum(byQoS [3]uint64) uint64 { return byQoS[0] + byQoS[1] + byQoS[2] }

// counts writes counters by name, the largest first.
func counts(m map[string]uint64) string {
	var list []string
	for name, n := range m {
		list = append(list, fmt.Sprintf("%d %s", n, name))
	}
	slices.SortFunc(list, func(a, b string) int {
		na, nb := m[a[strings.IndexByte(a, ' ')+1:]], m[b[strings.IndexByte(b, ' ')+1:]]
		if na != nb {
			return int(int64(nb) - int64(na))
		}
		return strings.Compare(a, b)
	})
	return strings.Join(list, ", ")
}
