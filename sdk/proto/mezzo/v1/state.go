package mezzov1

// Terminal is whether a task in this state has ended, or is taken for it:
// nothing but its acknowledgement is to follow.
func (x TaskState) Terminal() bool {
	switch x {
	case TaskState_TASK_FINISHED, TaskState_TASK_FAILED, TaskState_TASK_KILLED, TaskState_TASK_ERROR,
		TaskState_TASK_LOST, TaskState_TASK_DROPPED, TaskState_TASK_GONE, TaskState_TASK_GONE_BY_OPERATOR:
		return true
	}
	return false
}
