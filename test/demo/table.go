package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/mezzo-os/mezzo/sdk/resource"
)

// table is the allocation table of the DRF paper, written as it happens.
type table struct {
	cpus, mem float64 // in all

	mu     sync.Mutex
	chosen []int
	used   map[int][2]float64 // by framework: cpus, mem
	rows   chan struct{}
}

func newTable(cpus, mem float64) *table {
	fmt.Println("   chosen       framework 1              framework 2              total       total")
	fmt.Println("   framework    shares       dominant    shares       dominant    CPUs        memory")
	return &table{cpus: cpus, mem: mem, used: map[int][2]float64{}, rows: make(chan struct{}, 100)}
}

// launched is told of every launch, and prints its row.
func (t *table) launched(framework int, task resource.Resources) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.used[framework]
	t.used[framework] = [2]float64{u[0] + task.Get("cpus").Float(), u[1] + task.Get("mem").Float()}
	t.chosen = append(t.chosen, framework)
	cpus, mem := t.used[1][0]+t.used[2][0], t.used[1][1]+t.used[2][1]
	fmt.Printf("   %-12d %-24s %-24s %d/%d         %d/%d GB\n", framework, t.shares(1), t.shares(2),
		int(cpus), int(t.cpus), int(mem/1024), int(t.mem/1024))
	t.rows <- struct{}{}
}

func (t *table) shares(framework int) string {
	u := t.used[framework]
	return fmt.Sprintf("%-12s %s", "<"+fraction(u[0], t.cpus)+","+fraction(u[1]/1024, t.mem/1024)+">", fraction2(t.dominant(framework)))
}

func fraction(part, whole float64) string {
	if part == 0 {
		return "0"
	}
	return fmt.Sprintf("%d/%d", int(part), int(whole))
}

// fraction2 writes a share of eighteenths in lowest terms.
func fraction2(share float64) string {
	n := int(math.Round(share * 18))
	if n == 0 {
		return "0"
	}
	divisor := gcd(n, 18)
	return fmt.Sprintf("%d/%d", n/divisor, 18/divisor)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

func (t *table) dominant(framework int) float64 {
	return max(t.used[framework][0]/t.cpus, t.used[framework][1]/t.mem)
}

// wait returns after so many rows.
func (t *table) wait(ctx context.Context, rows int) error {
	for i := range rows {
		if _, err := receive(ctx, fmt.Sprintf("launch %d of %d", i+1, rows), t.rows); err != nil {
			return err
		}
	}
	return nil
}

// check compares with the paper: who was chosen in what order, and that both
// dominant shares are two thirds.
func (t *table) check(order []int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	if !slices.Equal(t.chosen, order) {
		errs = append(errs, fmt.Errorf("the frameworks were chosen in the order %v, not %v", t.chosen, order))
	}
	for f := 1; f <= 2; f++ {
		if math.Abs(t.dominant(f)-2.0/3) > 1e-9 {
			errs = append(errs, fmt.Errorf("framework %d has a dominant share of %.3f, not 2/3", f, t.dominant(f)))
		}
	}
	return errors.Join(errs...)
}
