package command

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/mezzo-os/mezzo/sdk/framework"
	mezzov1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1"
	schedulerv1 "github.com/mezzo-os/mezzo/sdk/proto/mezzo/v1/scheduler"
	"github.com/mezzo-os/mezzo/sdk/resource"
)

const (
	// complainAfter is how long a task may wait for an offer before the user is
	// told why; complainAgain is the pause after that.
	complainAfter = 5 * time.Second
	complainAgain = time.Minute
	// runFailover is how long the tasks live on without this process: longer
	// than a master takes to come back, short enough to leave nothing behind.
	runFailover = time.Minute
	// endGrace bounds the wait for tasks that were asked to end.
	endGrace = 15 * time.Second
	// tailGrace bounds the wait for the last output of tasks that have ended.
	tailGrace = 10 * time.Second
)

// job is one `mezzo run`: a framework of some equal tasks.
type job struct {
	c         *cli
	o         runOptions
	scheduler *framework.Scheduler
	output    *runOutput
	progress  *progressLine // of the pull of an image; of mu

	mu        sync.Mutex
	instances []*instance
	waiting   []int // instances that have no task yet, in order
	byTask    map[string]*instance
	largest   resource.Resources // the largest offer that was too small
	largestAt string
	ended     int
	stopping  bool
	allEnded  chan struct{}
	fatal     chan error
}

// instance is one of the job's equal tasks.
type instance struct {
	index    int
	attempt  int
	taskID   string
	agentID  string
	launched bool
	ended    bool
	code     int
}

func newJob(c *cli, o runOptions) (*job, error) {
	j := &job{
		c: c, o: o, output: newRunOutput(c, o.instances > 1), progress: newProgressLine(c.err),
		byTask: map[string]*instance{}, allEnded: make(chan struct{}), fatal: make(chan error, 1),
	}
	for i := range o.instances {
		j.instances = append(j.instances, &instance{index: i})
		j.waiting = append(j.waiting, i)
	}
	options := framework.Options{
		Resolve: c.client.masters,
		Info: &mezzov1.FrameworkInfo{
			Name: proto.String("run " + o.name), User: proto.String(o.user), Roles: []string{o.role},
			FailoverTimeout: proto.Float64(runFailover.Seconds()),
			Capabilities: []*mezzov1.FrameworkInfo_Capability{
				{Type: mezzov1.FrameworkInfo_Capability_MULTI_ROLE.Enum()},
				{Type: mezzov1.FrameworkInfo_Capability_RESERVATION_REFINEMENT.Enum()},
				{Type: mezzov1.FrameworkInfo_Capability_PARTITION_AWARE.Enum()},
			},
		},
		Callbacks: framework.Callbacks{
			Subscribed: func(s *framework.Scheduler, _ string, _ bool) { j.request(s) },
			Offers:     j.offers, Update: j.update,
		},
	}
	if o.gpus > 0 {
		options.Info.Capabilities = append(options.Info.Capabilities,
			&mezzov1.FrameworkInfo_Capability{Type: mezzov1.FrameworkInfo_Capability_GPU_RESOURCES.Enum()})
	}
	files, err := c.client.tls()
	if err != nil {
		return nil, err
	}
	if files != nil {
		if options.TLS, err = files.Client(); err != nil {
			return nil, err
		}
	}
	// A first look says at once, rather than never, that there is no cluster.
	conn, err := c.dial(context.Background())
	if err != nil {
		return nil, err
	}
	conn.Close()
	j.scheduler, err = framework.New(options)
	return j, err
}

// run returns the job's exit status, or why Mezzo failed.
func (j *job) run(ctx context.Context) (int, error) {
	background, cancel := context.WithCancel(context.Background())
	defer cancel()
	ran := make(chan error, 1)
	go func() { ran <- j.scheduler.Run(background) }()
	var timeout <-chan time.Time
	if j.o.timeout > 0 {
		timer := time.NewTimer(j.o.timeout)
		defer timer.Stop()
		timeout = timer.C
	}
	complain := time.NewTimer(complainAfter)
	defer complain.Stop()
	for {
		select {
		case <-j.allEnded:
			j.finish(background)
			return j.code(), nil
		case <-ctx.Done():
			j.stop(background)
			return exitInterrupted, nil
		case <-timeout:
			j.clearProgress()
			if why := j.unlaunched(); why != "" {
				fmt.Fprintf(j.c.err, "mezzo: not launched within %s, giving up: %s\n", j.o.timeout, why)
			} else {
				fmt.Fprintf(j.c.err, "mezzo: not ended within %s; ending it\n", j.o.timeout)
			}
			j.stop(background)
			return exitTimeout, nil
		case <-complain.C:
			if j.complain() {
				complain.Reset(complainAgain)
			} else {
				complain.Reset(complainAfter)
			}
		case err := <-j.fatal:
			j.stop(background)
			return 0, err
		case err := <-ran:
			return 0, cmp.Or(err, errors.New("the subscription ended"))
		}
	}
}

// offers launches as many of the waiting tasks as fit.
func (j *job) offers(s *framework.Scheduler, offers []*mezzov1.Offer) {
	for _, offer := range offers {
		tasks := j.fill(offer)
		ctx, cancel := context.WithTimeout(context.Background(), queryTimeout)
		var err error
		if len(tasks) > 0 {
			err = s.Launch(ctx, offer, tasks...)
		} else {
			err = s.Decline(ctx, &mezzov1.Filters{RefuseSeconds: proto.Float64(5)}, offer.GetId())
		}
		cancel()
		if err != nil && !errors.Is(err, framework.ErrNotSubscribed) {
			j.fail(fmt.Errorf("answer an offer: %w", err))
		} else if err != nil {
			j.again(tasks)
		}
	}
	j.request(s)
}

// request says what an instance needs, while one waits: what is revoked for the
// job is then never less than that, which would be of no use to it.
func (j *job) request(s *framework.Scheduler) {
	j.mu.Lock()
	wants := len(j.waiting) > 0 && !j.stopping
	j.mu.Unlock()
	if wants {
		s.Send(&schedulerv1.Call{Type: schedulerv1.Call_REQUEST.Enum(), Request: &schedulerv1.Call_Request{
			Requests: []*mezzov1.Request{{Resources: j.o.resources.ToProto()}},
		}})
	}
}

func (j *job) fill(offer *mezzov1.Offer) []*mezzov1.TaskInfo {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.waiting) == 0 || j.stopping {
		return nil
	}
	offered, err := resource.FromProto(offer.GetResources())
	if err != nil {
		j.fail(fmt.Errorf("offer %s: %w", offer.GetId().GetValue(), err))
		return nil
	}
	free := offered.Unallocate()
	var tasks []*mezzov1.TaskInfo
	for len(j.waiting) > 0 {
		taken, fits := free.Find(j.o.resources)
		if !fits {
			break
		}
		free = free.Minus(taken)
		tasks = append(tasks, j.task(j.instances[j.waiting[0]], offer.GetAgentId(), taken))
		j.waiting = j.waiting[1:]
	}
	if len(tasks) == 0 && offered.Unallocate().Get("cpus")+offered.Get("mem") > j.largest.Get("cpus")+j.largest.Get("mem") {
		j.largest, j.largestAt = offered.Unallocate(), offer.GetHostname()
	}
	return tasks
}

// task makes an instance's task. A second attempt has another id, because the
// first may still be known somewhere.
func (j *job) task(in *instance, agent *mezzov1.AgentID, resources resource.Resources) *mezzov1.TaskInfo {
	in.attempt++
	in.agentID, in.launched = agent.GetValue(), true
	in.taskID = fmt.Sprintf("%s.%s", safeName(j.o.name), strings.ToLower(rand.Text()[:8]))
	if j.o.instances > 1 {
		in.taskID += fmt.Sprintf(".%d", in.index)
	}
	j.byTask[in.taskID] = in
	return &mezzov1.TaskInfo{
		Name: proto.String(j.o.name), TaskId: &mezzov1.TaskID{Value: proto.String(in.taskID)}, AgentId: agent,
		Resources: resources.ToProto(), Command: j.o.commandInfo(), Container: j.o.container,
	}
}

// safeName keeps what may stand in a task's id.
func safeName(name string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == '.' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, name)
}

// again puts tasks that were not launched back at the head of the line.
func (j *job) again(tasks []*mezzov1.TaskInfo) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := len(tasks) - 1; i >= 0; i-- {
		j.requeue(j.byTask[tasks[i].GetTaskId().GetValue()])
	}
}

func (j *job) requeue(in *instance) {
	delete(j.byTask, in.taskID)
	in.launched = false
	j.waiting = append([]int{in.index}, j.waiting...)
}

// update follows a task's state.
func (j *job) update(_ *framework.Scheduler, status *mezzov1.TaskStatus) {
	j.mu.Lock()
	defer j.mu.Unlock()
	in := j.byTask[status.GetTaskId().GetValue()]
	if in == nil || in.ended {
		return
	}
	if status.GetState() != mezzov1.TaskState_TASK_STARTING {
		j.progress.clear()
	}
	switch status.GetState() {
	case mezzov1.TaskState_TASK_RUNNING, mezzov1.TaskState_TASK_KILLING:
		j.output.follow(in.index, in.taskID, j.scheduler.FrameworkID(), in.agentID)
	case mezzov1.TaskState_TASK_STARTING:
		if j.o.image != "" && j.o.instances == 1 && !j.stopping && status.GetMessage() != "" {
			j.progress.show(status.GetMessage()) // how far the pull is
		}
	case mezzov1.TaskState_TASK_STAGING, mezzov1.TaskState_TASK_UNREACHABLE, mezzov1.TaskState_TASK_UNKNOWN:
	case mezzov1.TaskState_TASK_DROPPED, mezzov1.TaskState_TASK_LOST:
		if !j.stopping && neverStarted(status) {
			j.requeue(in)
			return
		}
		j.end(in, status)
	default:
		j.end(in, status)
	}
}

// neverStarted says that a task did not begin for a reason that will pass.
func neverStarted(status *mezzov1.TaskStatus) bool {
	switch status.GetReason() {
	case mezzov1.TaskStatus_REASON_INVALID_OFFERS, mezzov1.TaskStatus_REASON_AGENT_DISCONNECTED, mezzov1.TaskStatus_REASON_AGENT_REMOVED:
		return status.Reason != nil
	}
	return false
}

func (j *job) end(in *instance, status *mezzov1.TaskStatus) {
	in.ended = true
	j.ended++
	in.code = exitCode(status)
	if text := unusual(status); text != "" && !j.stopping {
		fmt.Fprintf(j.c.err, "mezzo: %s: %s\n", in.taskID, text)
	}
	if j.ended == len(j.instances) {
		close(j.allEnded)
	}
}

// exitCode is what a shell would report of such an end.
func exitCode(status *mezzov1.TaskStatus) int {
	switch {
	case status.GetState() == mezzov1.TaskState_TASK_FINISHED:
		return 0
	case status.GetExitSignal() != 0:
		return 128 + int(status.GetExitSignal())
	case status.GetExitCode() != 0:
		return int(status.GetExitCode())
	}
	return exitMezzoFailed
}

// unusual tells of an end that the command's own exit status does not explain.
func unusual(status *mezzov1.TaskStatus) string {
	ownEnd := status.GetState() == mezzov1.TaskState_TASK_FINISHED || status.GetState() == mezzov1.TaskState_TASK_FAILED
	if ownEnd && (status.ExitCode != nil || status.ExitSignal != nil || status.GetState() == mezzov1.TaskState_TASK_FINISHED) && !limited(status) {
		return ""
	}
	text := status.GetState().String()
	if status.Reason != nil {
		text += " (" + status.GetReason().String() + ")"
	}
	if status.GetMessage() != "" {
		text += ": " + status.GetMessage()
	}
	return text
}

func limited(status *mezzov1.TaskStatus) bool {
	return status.Reason != nil && strings.HasPrefix(status.GetReason().String(), "REASON_CONTAINER_LIMITATION") ||
		status.GetReason() == mezzov1.TaskStatus_REASON_MAX_COMPLETION_TIME_REACHED
}

func (j *job) code() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, in := range j.instances {
		if in.code != 0 {
			return in.code
		}
	}
	return 0
}

// clearProgress takes the line about the pull away, before another.
func (j *job) clearProgress() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.progress.clear()
}

// fail ends the job; the first reason counts.
func (j *job) fail(err error) {
	select {
	case j.fatal <- err:
	default:
	}
}

// complain says why nothing runs. It says whether there was reason to.
func (j *job) complain() bool {
	why := j.unlaunched()
	if why != "" {
		fmt.Fprintf(j.c.err, "mezzo: %s; still waiting\n", why)
	}
	return why != ""
}

// unlaunched says why nothing is launched; empty: something is, and the rest will
// have its turn.
func (j *job) unlaunched() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case len(j.waiting) == 0 || len(j.waiting)+j.ended < len(j.instances):
		return ""
	case j.largest.IsEmpty():
		return fmt.Sprintf("no offer has come; a task needs %s (mezzo status, mezzo agents and mezzo roles show what there is)", j.o.resources)
	}
	return fmt.Sprintf("no offer is large enough: a task needs %s, and the largest offer was %s on %s", j.o.resources, j.largest, j.largestAt)
}

// stop asks every task to end, waits within bounds, and ends the framework.
func (j *job) stop(ctx context.Context) {
	j.mu.Lock()
	j.stopping = true
	var running []*instance
	for _, in := range j.instances {
		if in.launched && !in.ended {
			running = append(running, in)
		}
	}
	j.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, endGrace)
	defer cancel()
	for _, in := range running {
		if err := j.scheduler.Kill(ctx, in.taskID, nil); err != nil {
			break // the teardown below ends them as well
		}
	}
	for !j.quiet() && ctx.Err() == nil {
		select {
		case <-j.allEnded:
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	j.finish(ctx)
}

// quiet says that no task is under way.
func (j *job) quiet() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, in := range j.instances {
		if in.launched && !in.ended {
			return false
		}
	}
	return true
}

// finish waits for the last output and ends the framework.
func (j *job) finish(ctx context.Context) {
	j.output.wait(tailGrace)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	// Should the master not hear it, the failover timeout does the same.
	_ = j.scheduler.Teardown(ctx)
}
