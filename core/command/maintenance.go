package command

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/mezzo-os/mezzo/config"
	operatorv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/operator/v1"
)

func (c *cli) maintenanceCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "maintenance", Short: "Plan when machines are unavailable, and take them down and up", Args: cobra.NoArgs, RunE: needVerb,
		Long: "Machines are named by the host name of their agents, by their address, or as host@address. A machine that is in the schedule is\n" +
			"offered with its window, and frameworks that hold something there are asked to leave; nothing is ended for it. Then it can be\n" +
			"taken down, which ends its agents and their tasks, and up again.",
	}
	schedule := &cobra.Command{Use: "schedule", Short: "The maintenance schedule: show, set, clear", Long: "The schedule says which machines are planned to be unavailable, and when. It is set as a whole, from a file.", Args: cobra.NoArgs, RunE: needVerb}
	schedule.AddCommand(c.scheduleShowCommand(), c.scheduleSetCommand(), c.scheduleClearCommand())
	group.AddCommand(schedule, c.maintenanceStatusCommand(),
		c.machinesCommand("down", "Take machines of the schedule down: their agents end, with all tasks", "  mezzo maintenance down node1.example.com 10.0.0.7", "down", func(ctx context.Context, client operatorv1.OperatorClient, machines []*operatorv1.Machine) error {
			_, err := client.StartMaintenance(ctx, &operatorv1.StartMaintenanceRequest{Machines: machines})
			return err
		}),
		c.machinesCommand("up", "Have machines up again that are down, and take them out of the schedule", "  mezzo maintenance up node1.example.com", "up, and out of the schedule; start their agents", func(ctx context.Context, client operatorv1.OperatorClient, machines []*operatorv1.Machine) error {
			_, err := client.StopMaintenance(ctx, &operatorv1.StopMaintenanceRequest{Machines: machines})
			return err
		}))
	return group
}

func (c *cli) scheduleShowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show", Short: "Print the maintenance schedule as a file that schedule set reads", Args: cobra.NoArgs,
		Long:    "Prints the schedule in HCL. mezzo maintenance status shows how its machines stand.",
		Example: "  mezzo maintenance schedule show > schedule.hcl",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				answer, err := client.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
				switch {
				case err != nil:
					return err
				case c.json:
					return c.writeJSON(answer.GetMaintenance())
				}
				text := config.FormatSchedule(configWindows(answer.GetMaintenance().GetWindows()))
				if len(text) == 0 {
					text = []byte("# Nothing is planned.\n")
				}
				_, err = c.out.Write(text)
				return err
			})
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, shapeOf(jsonOne, (*operatorv1.Maintenance)(nil)))
	return cmd
}

func (c *cli) scheduleSetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "set FILE", Short: "Replace the whole maintenance schedule by that of a file",
		Long: "The file has a block for each window:\n\n" +
			"  window {\n    machines = [\"node1.example.com\", \"10.0.0.7\"]\n    start    = \"2026-12-01T22:00:00Z\"\n    duration = \"4h\" # without it no end is planned\n  }\n\n" +
			"What it does not name is not planned any more. Machines that are down have to be in it.",
		Example: "  mezzo maintenance schedule show > schedule.hcl\n  mezzo maintenance schedule set schedule.hcl",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			windows, file, diags := config.ReadSchedule(args[0])
			if err := c.resolved(file, diags); err != nil {
				return err
			}
			return c.setSchedule(cmd.Context(), windows)
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func (c *cli) scheduleClearCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "clear", Short: "Plan nothing any more", Args: cobra.NoArgs,
		Long:    "Takes every machine out of the schedule. It is refused while one of them is down: mezzo maintenance up has it up first.",
		Example: "  mezzo maintenance schedule clear",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.setSchedule(cmd.Context(), nil) },
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func (c *cli) setSchedule(ctx context.Context, windows []config.MaintenanceWindow) error {
	request := &operatorv1.SetMaintenanceScheduleRequest{}
	machines := 0
	for _, w := range windows {
		machines += len(w.Machines)
		request.Windows = append(request.Windows, &operatorv1.MaintenanceWindow{
			Machines:       machineMessages(w.Machines),
			Unavailability: &operatorv1.Unavailability{Start: timestamppb.New(w.Start), DurationSeconds: w.Duration.Seconds()},
		})
	}
	return c.withOperator(ctx, func(ctx context.Context, client operatorv1.OperatorClient) error {
		if _, err := client.SetMaintenanceSchedule(ctx, request); err != nil {
			return err
		}
		if machines == 0 {
			return c.done("nothing is planned any more")
		}
		return c.done("the schedule is set: %s in %s", plural(uint64(machines), "machine"), plural(uint64(len(windows)), "window"))
	})
}

func (c *cli) maintenanceStatusCommand() *cobra.Command {
	return listCommand(c, list[*operatorv1.MachineStatus]{
		use: "status", short: "List the machines of the schedule, and what frameworks say to leaving them",
		long:    "MODE is draining while the window is planned, or down. Frameworks that hold something on a machine were asked to leave it.",
		example: "  mezzo maintenance status\n  mezzo maintenance status --watch",
		fetch: func(ctx context.Context, client operatorv1.OperatorClient, _ []string) ([]*operatorv1.MachineStatus, error) {
			answer, err := client.GetMaintenance(ctx, &operatorv1.GetMaintenanceRequest{})
			return answer.GetMachines(), err
		},
		header: []string{"MACHINE", "MODE", "START", "DURATION", "AGENTS", "TASKS", "FRAMEWORKS ASKED TO LEAVE"},
		row: func(m *operatorv1.MachineStatus) []string {
			var agents, answers []string
			tasks := uint64(0)
			for _, a := range m.Agents {
				agents = append(agents, a.Id)
				tasks += a.Tasks
				for _, x := range a.InverseOffers {
					answers = append(answers, x.FrameworkId+" "+x.Status)
				}
			}
			duration := "-"
			if d := m.Unavailability.GetDurationSeconds(); d > 0 {
				duration = time.Duration(d * float64(time.Second)).String()
			}
			return []string{
				config.Machine{Hostname: m.Machine.GetHostname(), IP: m.Machine.GetIp()}.String(), m.Mode,
				m.Unavailability.GetStart().AsTime().UTC().Format(time.RFC3339), duration, dash(strings.Join(agents, ",")), fmt.Sprint(tasks), dash(strings.Join(answers, ", ")),
			}
		},
		empty: "Nothing is planned.",
		key:   func(m *operatorv1.MachineStatus) string { return m.Machine.GetHostname() + "@" + m.Machine.GetIp() },
	})
}

func (c *cli) machinesCommand(verb, short, example, said string, do func(context.Context, operatorv1.OperatorClient, []*operatorv1.Machine) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: verb + " MACHINE…", Short: short, Example: example, Args: cobra.MinimumNArgs(1),
		Long: short + ".\nMachines are named as in the schedule: host, address, or host@address.",
		RunE: func(cmd *cobra.Command, args []string) error {
			machines := make([]config.Machine, len(args))
			for i, arg := range args {
				var err error
				if machines[i], err = config.ParseMachine(arg); err != nil {
					return usage("%w", err)
				}
			}
			return c.withOperator(cmd.Context(), func(ctx context.Context, client operatorv1.OperatorClient) error {
				if err := do(ctx, client, machineMessages(machines)); err != nil {
					return err
				}
				return c.done("%s: %s", strings.Join(args, ", "), said)
			})
		},
	}
	c.addClientFlags(cmd)
	c.addJSONFlag(cmd, orderShape)
	return cmd
}

func machineMessages(list []config.Machine) []*operatorv1.Machine {
	out := make([]*operatorv1.Machine, len(list))
	for i, m := range list {
		out[i] = &operatorv1.Machine{Hostname: m.Hostname, Ip: m.IP}
	}
	return out
}

func configWindows(list []*operatorv1.MaintenanceWindow) []config.MaintenanceWindow {
	out := make([]config.MaintenanceWindow, len(list))
	for i, w := range list {
		u := w.GetUnavailability()
		out[i] = config.MaintenanceWindow{
			Start: u.GetStart().AsTime(), Duration: time.Duration(u.GetDurationSeconds() * float64(time.Second)),
		}
		for _, m := range w.Machines {
			out[i].Machines = append(out[i].Machines, config.Machine{Hostname: m.Hostname, IP: m.Ip})
		}
	}
	return out
}
