package state

import "github.com/mezzo-os/mezzo/sdk/resource"

// Books returns, for tests, the total of each agent in the books, and what is
// held on it by framework and role.
func (m *Machine) Books() (total map[string]resource.Resources, held map[string]map[[2]string]resource.Resources) {
	total, held = map[string]resource.Resources{}, map[string]map[[2]string]resource.Resources{}
	for _, id := range m.books.Agents() {
		v, _ := m.books.Agent(id)
		total[id], held[id] = v.Total, map[[2]string]resource.Resources{}
		for _, h := range m.books.HoldingsOn(id) {
			held[id][[2]string{h.Framework, h.Role}] = h.Offered.Add(h.Used)
		}
	}
	return total, held
}
