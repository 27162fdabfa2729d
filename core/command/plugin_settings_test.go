package command

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	pluginv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/plugin/v1"
)

// everySetting has all that a schema may say.
var everySetting = &pluginv1.Schema{
	Attributes: []*pluginv1.Attribute{
		{Name: "listen", Type: pluginv1.Type_TYPE_STRING, Required: true, Help: "Where it listens: HOST|PORT, such as <all>."},
		{Name: "token", Type: pluginv1.Type_TYPE_STRING, Secret: true},
		{Name: "after", Type: pluginv1.Type_TYPE_DURATION, DefaultJson: "5400000000000", Help: "When. By default soon; but it has a value."},
		{Name: "grace", Type: pluginv1.Type_TYPE_DURATION, DefaultJson: "0"},
		{Name: "most", Type: pluginv1.Type_TYPE_SIZE, DefaultJson: "67108864", Help: "How much, in all_of_it (see /etc/most.d)."},
		{Name: "names", Type: pluginv1.Type_TYPE_STRING_LIST, DefaultJson: `["a","b"]`},
		{Name: "cpus", Type: pluginv1.Type_TYPE_STRING, Help: "The processors. By default all, /etc/cpus.d aside."},
		{Name: "odd", Type: pluginv1.Type_TYPE_BOOL, Help: "By default it is off. That may change."},
	},
	Blocks: []*pluginv1.Block{
		{Name: "role", Label: "path", Repeated: true, Help: "A role.", Schema: &pluginv1.Schema{
			Attributes: []*pluginv1.Attribute{{Name: "weight", Type: pluginv1.Type_TYPE_NUMBER, DefaultJson: "1.5"}},
			Blocks:     []*pluginv1.Block{{Name: "limit", Help: "Its limit.", Schema: &pluginv1.Schema{Attributes: []*pluginv1.Attribute{{Name: "cpus", Type: pluginv1.Type_TYPE_INT}}}}},
		}},
		{Name: "empty", Required: true, Schema: &pluginv1.Schema{}},
	},
}

func TestSettingsMarkdown(t *testing.T) {
	want := "| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n" +
		"| `listen` | text | none; must be written | Where it listens: HOST\\|PORT, such as &lt;all> |\n" +
		"| `token` | text, secret | none |  |\n" +
		"| `after` | duration | `\"1h30m\"` | When. By default soon; but it has a value |\n" +
		"| `grace` | duration | `\"0s\"` |  |\n" +
		"| `most` | size | `\"64MiB\"` | How much, in `all_of_it` (see `/etc/most.d`) |\n" +
		"| `names` | list of texts | `[\"a\", \"b\"]` |  |\n" +
		"| `cpus` | text | all, `/etc/cpus.d` aside | The processors |\n" +
		"| `odd` | flag | none | By default it is off. That may change |\n" +
		"\nBlock `role`, as often as needed, with the label PATH. A role.\n" +
		"\n| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n" +
		"| `weight` | number | `1.5` |  |\n" +
		"\nBlock `limit` in `role`, at most one. Its limit.\n" +
		"\n| Attribute | Type | Default | Meaning |\n|---|---|---|---|\n" +
		"| `cpus` | whole number | none |  |\n" +
		"\nBlock `empty`, must be written.\n"
	if diff := cmp.Diff(want, settingsMarkdown(everySetting)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := settingsMarkdown(nil); got != noSettings {
		t.Errorf("without settings: %q", got)
	}
}

func TestSettingsText(t *testing.T) {
	want := `config {
  # Where it listens: HOST|PORT, such
  # as <all>.
  listen = (text, required)

  token = (text, secret)

  # When. By default soon; but it has
  # a value.
  after = (duration, default "1h30m")

  grace = (duration, default "0s")

  # How much, in all_of_it (see
  # /etc/most.d).
  most = (size, default "64MiB")

  names = (list of texts, default ["a", "b"])

  # The processors. By default all,
  # /etc/cpus.d aside.
  cpus = (text)

  # By default it is off. That may
  # change.
  odd = (flag)

  # A role. As often as needed.
  role "PATH" {
    weight = (number, default 1.5)

    # Its limit.
    limit {
      cpus = (whole number)
    }
  }

  # Required.
  empty {
  }
}
`
	if diff := cmp.Diff(want, settingsText(everySetting, 38)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
