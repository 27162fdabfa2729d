package legacy

import (
	"maps"
	"math"
	"slices"

	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
)

// Labels writes labels as a list.
func Labels(j *JSON, labels *mezzov1.Labels) {
	j.Array(func() {
		for _, l := range labels.GetLabels() {
			j.Object(func() {
				j.Key("key").Text(l.GetKey())
				if l.Value != nil {
					j.Key("value").Text(l.GetValue())
				}
			})
		}
	})
}

// Task writes a task.
func Task(j *JSON, t *mezzov1.Task, role string) {
	j.Object(func() {
		j.Key("id").Text(t.GetTaskId().GetValue())
		j.Key("name").Text(t.GetName())
		j.Key("framework_id").Text(t.GetFrameworkId().GetValue())
		j.Key("executor_id").Text(t.GetExecutorId().GetValue())
		j.Key("slave_id").Text(t.GetAgentId().GetValue())
		j.Key("state").Text(t.GetState().String())
		j.Key("resources")
		Resources(j, t.GetResources())
		if role != "" {
			j.Key("role").Text(role)
		}
		if len(t.GetLimits()) > 0 {
			j.Key("limits").Object(func() {
				for _, name := range slices.Sorted(maps.Keys(t.GetLimits())) {
					if j.Key(name); math.IsInf(t.GetLimits()[name].GetValue(), 0) {
						j.Text("Infinity")
					} else {
						j.Float(t.GetLimits()[name].GetValue())
					}
				}
			})
		}
		j.Key("statuses").Array(func() {
			for _, s := range t.GetStatuses() {
				status(j, s)
			}
		})
		if t.User != nil {
			j.Key("user").Text(t.GetUser())
		}
		if t.Labels != nil {
			j.Key("labels")
			Labels(j, t.GetLabels())
		}
		if t.Discovery != nil {
			j.Key("discovery").Message(t.GetDiscovery())
		}
		if t.Container != nil {
			j.Key("container").Message(t.GetContainer())
		}
		if t.HealthCheck != nil {
			j.Key("health_check").Message(t.GetHealthCheck())
		}
	})
}

func status(j *JSON, s *mezzov1.TaskStatus) {
	j.Object(func() {
		j.Key("state").Text(s.GetState().String())
		j.Key("timestamp").Float(s.GetTimestamp())
		if s.Labels != nil {
			j.Key("labels")
			Labels(j, s.GetLabels())
		}
		if s.ContainerStatus != nil {
			j.Key("container_status").Message(s.GetContainerStatus())
		}
		if s.Healthy != nil {
			j.Key("healthy").Bool(s.GetHealthy())
		}
	})
}

// Command writes a command as executors have it.
func Command(j *JSON, c *mezzov1.CommandInfo) {
	j.Object(func() {
		j.Key("shell").Bool(c.GetShell())
		if c.Value != nil {
			j.Key("value").Text(c.GetValue())
		}
		j.Key("argv").Texts(c.GetArguments())
		if c.Environment != nil {
			j.Key("environment").Message(c.GetEnvironment())
		}
		j.Key("uris").Array(func() {
			for _, u := range c.GetUris() {
				j.Object(func() {
					j.Key("value").Text(u.GetValue())
					j.Key("executable").Bool(u.GetExecutable())
				})
			}
		})
	})
}

// Executor writes what master and agent say alike of an executor, in an object
// that the caller has begun.
func Executor(j *JSON, e *mezzov1.ExecutorInfo, role string, resources []*mezzov1.Resource) {
	j.Key("executor_id").Text(e.GetExecutorId().GetValue())
	j.Key("name").Text(e.GetName())
	j.Key("framework_id").Text(e.GetFrameworkId().GetValue())
	if e.Command != nil {
		j.Key("command")
		Command(j, e.GetCommand())
	}
	j.Key("resources")
	Resources(j, resources)
	if role != "" {
		j.Key("role").Text(role)
	}
	if e.Labels != nil {
		j.Key("labels")
		Labels(j, e.GetLabels())
	}
	if e.Type != nil {
		j.Key("type").Text(e.GetType().String())
	}
}
