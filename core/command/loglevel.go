package command

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

// logLevelTimeout bounds one question.
const logLevelTimeout = 30 * time.Second

func (c *cli) logLevelCommand() *cobra.Command {
	var agent string
	var lasting time.Duration
	cmd := &cobra.Command{
		Use: "log-level [LEVEL]", Short: "Show or change how much a running master or agent logs", Args: cobra.MaximumNArgs(1),
		Long: `Has the process at --address (a master, or an agent) log from LEVEL on: trace, debug,
info, warn or error; for as long as --for says, and otherwise until it ends. Then, and
with "config" for LEVEL, it is what its configuration says again. Without LEVEL it shows
what counts now. A plugin that has a log_level of its own keeps it; one that has none
was told at its start what to send, and sends no more than that.`,
		Example: "  mezzo log-level debug --for 10m\n  mezzo log-level --agent a1.example.com\n  mezzo log-level config",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && cmd.Flags().Changed("for") {
				return usage("--for needs a LEVEL")
			}
			if lasting < 0 {
				return usage("--for %v is in the past", lasting)
			}
			if len(args) == 1 && args[0] != "config" && !slices.Contains(logLevels, args[0]) {
				return usage("LEVEL %q: give one of %s, or config", args[0], strings.Join(logLevels, ", "))
			}
			return c.logLevel(cmd.Context(), agent, args, lasting)
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "", "of this agent (its id, the beginning or the end of it, or its host name), which the master at --address knows")
	cmd.Flags().DurationVar(&lasting, "for", 0, "for how long, such as 10m")
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOf(jsonOne, (*operatorv1.LogLevel)(nil)))
	return cmd
}

func (c *cli) logLevel(ctx context.Context, agent string, level []string, lasting time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, logLevelTimeout)
	defer cancel()
	return c.eachProcess(ctx, agent, "log level of", func(client processClient) error {
		answer, err := logLevelOf(ctx, client, level, lasting)
		if err != nil {
			return err
		}
		return c.showLogLevel(answer)
	})
}

// logLevelOf asks, or says, how much a process logs.
func logLevelOf(ctx context.Context, client processClient, level []string, lasting time.Duration) (*operatorv1.LogLevel, error) {
	if len(level) == 0 {
		return client.GetLogLevel(ctx, &operatorv1.GetLogLevelRequest{})
	}
	q := &operatorv1.SetLogLevelRequest{Level: level[0], DurationMs: uint64(lasting.Milliseconds())}
	if q.Level == "config" {
		q.Level = ""
	}
	return client.SetLogLevel(ctx, q)
}

func (c *cli) showLogLevel(l *operatorv1.LogLevel) error {
	if c.json {
		return c.writeJSON(l)
	}
	fmt.Fprint(c.out, l.GetLevel())
	if l.GetLevel() != l.GetConfigured() || l.GetUntil() != nil {
		fmt.Fprintf(c.out, " (%s in the configuration", l.GetConfigured())
		if l.GetUntil() != nil {
			fmt.Fprintf(c.out, ", again from %s on", l.GetUntil().AsTime().Local().Format(time.DateTime))
		}
		fmt.Fprint(c.out, ")")
	}
	fmt.Fprintln(c.out)
	return nil
}
