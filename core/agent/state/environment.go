package state

import (
	"strconv"
	"time"
)

// environment is what an executor's process finds set, beyond what every
// container does.
func (m *Machine) environment(e *executor) []Variable {
	var list []Variable
	for _, name := range m.adapterNames() {
		list = append(list, m.adapters[name].environment...)
	}
	grace, backoff := durationText(m.stopGrace(e)), durationText(m.cfg.SubscriptionBackoffMax)
	recovery := durationText(m.cfg.RecoveryTimeout)
	for _, prefix := range []string{"MEZZO_", "MESOS_"} {
		list = append(list,
			Variable{prefix + "FRAMEWORK_ID", e.framework.id},
			Variable{prefix + "EXECUTOR_ID", e.id},
			Variable{prefix + "RECOVERY_TIMEOUT", recovery},
			Variable{prefix + "SUBSCRIPTION_BACKOFF_MAX", backoff},
			Variable{prefix + "EXECUTOR_SHUTDOWN_GRACE_PERIOD", grace},
		)
	}
	return append(list,
		Variable{"MESOS_CHECKPOINT", "1"}, // always, asked or not
		Variable{"MESOS_HTTP_COMMAND_EXECUTOR", "0"},
		Variable{"LIBPROCESS_PORT", "0"},
	)
}

// tokenVariables are where an executor's process finds its token. They win over
// what adapters give, so that no adapter takes the token's place.
func (m *Machine) tokenVariables(e *executor) []Variable {
	if !e.program.token {
		return nil
	}
	token := m.token(e)
	list := []Variable{{tokenVariable, token}}
	for _, name := range m.adapterNames() {
		for _, v := range m.adapters[name].tokens {
			list = append(list, Variable{v, token})
		}
	}
	return list
}

// durationText is a duration as Mesos writes it: a number and the largest unit
// that gives a whole one.
func durationText(d time.Duration) string {
	for _, u := range []struct {
		name string
		unit time.Duration
	}{
		{"weeks", 7 * 24 * time.Hour}, {"days", 24 * time.Hour}, {"hrs", time.Hour}, {"mins", time.Minute},
		{"secs", time.Second}, {"ms", time.Millisecond}, {"us", time.Microsecond},
	} {
		if d != 0 && d%u.unit == 0 {
			return strconv.FormatInt(int64(d/u.unit), 10) + u.name
		}
	}
	return strconv.FormatInt(int64(d), 10) + "ns"
}
