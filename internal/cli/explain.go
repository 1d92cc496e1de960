package cli

import (
	"github.com/spf13/cobra"

	"github.com/isthmus-iot/isthmus/bridge"
)

func newExplainCommand(env *Env) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain TOPIC",
		Short: "Tell what would happen to a message, and why",
		Long: `Ask a running gateway what would happen to a message on TOPIC: the rule that lets it pass or not, the
retained value, and every subscription that matches with its owner and what would become of it.
Nothing is delivered.`,
		Args: cobra.ExactArgs(1),
	}
	file, form := configFlag(cmd), outputFlag(cmd)
	client := cmd.Flags().StringP("id", "i", "", "client `ID` of the publisher")
	user := cmd.Flags().StringP("username", "u", "", "`USER` of the publisher, where the client is not connected")
	qos := cmd.Flags().Uint8P("qos", "q", 0, "quality of service: 0, 1 or 2")
	retain := cmd.Flags().BoolP("retain", "r", false, "as a retained message")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		topic, err := bridge.ParseTopic(args[0])
		if err != nil {
			return withHint(usagef("%q: %v", args[0], err), "TOPIC is what a message is published to, without wildcards")
		}
		if *qos > 2 {
			return usagef("--qos is %d, want 0, 1 or 2", *qos)
		}
		gateway, err := running(*file)
		if err != nil {
			return err
		}
		steps, err := gateway.Explain(cmd.Context(), &bridge.Message{Topic: topic, QoS: bridge.QoS(*qos), Retain: *retain}, *client, *user)
		if err != nil {
			return notRunning(err)
		}
		if *form == "json" {
			return env.printJSON(steps)
		}
		for _, s := range steps {
			env.Printf("%s\n", s)
		}
		return nil
	}
	return cmd
}
