package command

import (
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/core/agent/fetcher"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// fetchWorkerCommand is what an agent starts to fetch a URI as the task's user.
func (c *cli) fetchWorkerCommand() *cobra.Command {
	return &cobra.Command{
		Use: fetcher.Verb, Hidden: true, Args: cobra.NoArgs, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return fetcher.Work(cmd.Context(), c.in, c.out) },
	}
}

// uris reads the values of --uri. A URL may have commas in it: only what stands
// last and reads as an option is one.
func uris(texts []string) ([]*mezzov1.CommandInfo_URI, error) {
	var list []*mezzov1.CommandInfo_URI
	for _, text := range texts {
		u := &mezzov1.CommandInfo_URI{}
		rest := text
		for {
			at := strings.LastIndexByte(rest, ',')
			if at < 0 || !uriOption(u, rest[at+1:]) {
				break
			}
			rest = rest[:at]
		}
		u.Value = proto.String(rest)
		if err := fetcher.Validate(u); err != nil {
			return nil, usage("--uri %s: %v", fetcher.Redact(text), err)
		}
		list = append(list, u)
	}
	return list, nil
}

func uriOption(u *mezzov1.CommandInfo_URI, text string) bool {
	name, value, _ := strings.Cut(text, "=")
	switch {
	case text == "executable":
		u.Executable = proto.Bool(true)
	case text == "cache":
		u.Cache = proto.Bool(true)
	case text == "extract=false":
		u.Extract = proto.Bool(false)
	case name == "output" && value != "":
		u.OutputFile = proto.String(value)
	case name == "checksum" && value != "":
		u.Checksum = proto.String(value)
	default:
		return false
	}
	return true
}
