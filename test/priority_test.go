package test

import (
	"os"
	"path/filepath"
	"testing"
)

// Of two who wait for the whole cluster, the one of the higher role gets it,
// though the other came first.
func TestPriority(t *testing.T) {
	t.Parallel()
	config := filepath.Join(tempDir(t), "dev.hcl")
	text := "allocator \"priority\" {\n  config {\n    role \"prod\" {\n      priority = 10\n    }\n  }\n}\n"
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startDev(t, "--config", config)
	wait := "while [ ! -e go ]; do sleep 0.05; done"
	holder := c.start("run", "--name", "holder", "--cpus", "4", "--", "sh", "-c", wait)
	running := func(name string) func() bool {
		return func() bool { return c.task(name)["state"] == "TASK_RUNNING" }
	}
	eventually(t, "the first task", running("holder"))
	low := c.start("run", "--name", "low", "--role", "low", "--cpus", "4", "--", "true")
	eventually(t, "the lower framework", func() bool { return len(c.list("frameworks")) == 2 })
	high := c.start("run", "--name", "high", "--role", "prod", "--cpus", "4", "--", "sh", "-c", wait)
	eventually(t, "the higher framework", func() bool { return len(c.list("frameworks")) == 3 })
	release(t, c, "holder")
	eventually(t, "the higher task", running("high"))
	if task := c.task("low"); task != nil {
		t.Errorf("the lower role came first: %v", task)
	}
	release(t, c, "high")
	for _, b := range []*background{holder, high, low} {
		if r := b.wait(); r.code != 0 {
			t.Errorf("%v: %+v", b.cmd.Args, r)
		}
	}
}

// Where the operator allows it, a lower role's task is ended for a higher one.
func TestPriorityPreempts(t *testing.T) {
	t.Parallel()
	config := filepath.Join(tempDir(t), "dev.hcl")
	text := `
master {
  revocation {
    enabled   = true
    min_grace = "1s"
  }
}
allocator "priority" {
  config {
    role "prod" {
      priority = 10
    }
    preempt {
      after        = "1s"
      grace_period = "2s"
    }
  }
}
`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startDev(t, "--config", config)
	low := c.start("run", "--name", "low", "--role", "batch", "--cpus", "4", "--", "sleep", "1000")
	eventually(t, "the lower task", func() bool { return c.task("low")["state"] == "TASK_RUNNING" })
	if r := c.mezzo("run", "--name", "high", "--role", "prod", "--cpus", "4", "--", "echo", "first"); r.code != 0 || r.stdout != "first\n" {
		t.Errorf("the higher task: %+v", r)
	}
	if r := low.wait(); r.code == 0 {
		t.Errorf("the lower framework: %+v, want a status that is not 0", r)
	}
	if task := c.task("low"); task["reason"] != "REASON_CONTAINER_PREEMPTED" {
		t.Errorf("the lower task: %v", task)
	}
}

// Under fairness a framework that has everything gives some of it up for one
// that has nothing, where the operator allows it.
func TestFairnessPreempts(t *testing.T) {
	t.Parallel()
	config := filepath.Join(tempDir(t), "dev.hcl")
	text := `
master {
  revocation {
    enabled   = true
    min_grace = "1s"
  }
}
allocator "drf" {
  config {
    preempt {
      after        = "1s"
      grace_period = "2s"
    }
  }
}
`
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	c := startDev(t, "--config", config)
	c.start("run", "--name", "rich", "--role", "rich", "--instances", "4", "--cpus", "1", "--", "sleep", "1000")
	states := func() map[any]int {
		n := map[any]int{}
		for _, task := range c.list("tasks", "--all") {
			if task["role"] == "rich" {
				n[task["state"]]++
			}
		}
		return n
	}
	eventually(t, "the four tasks", func() bool { return states()["TASK_RUNNING"] == 4 })
	if r := c.mezzo("run", "--name", "poor", "--role", "poor", "--cpus", "1", "--", "echo", "fair"); r.code != 0 || r.stdout != "fair\n" {
		t.Errorf("the task of the poor: %+v", r)
	}
	// Half of the cluster is its share; how much of it it needs it did not say.
	if n := states(); n["TASK_GONE"] == 0 || n["TASK_RUNNING"] < 2 {
		t.Errorf("tasks of the rich %v, want some that were taken, and two that run", n)
	}
}
