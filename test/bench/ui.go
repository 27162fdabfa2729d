package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"time"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/mezzo-os/mezzo/core/master/mastertest"
)

const (
	pageAgents  = 10_000
	pageTasks   = 2 // of each agent
	pageOrders  = 10
	pageVisits  = 3
	pageTimeout = time.Minute
)

// pages measures the web UI in a browser: how soon a page is painted, how soon
// it has the whole cluster, and how soon it shows what somebody ordered.
func (b *bench) pages(ctx context.Context) error {
	if _, err := exec.LookPath("chromium"); err != nil {
		return fmt.Errorf("the web UI is measured in a browser: %w", err)
	}
	c, err := b.newCluster(ctx, 5*time.Millisecond, variant{})
	if c != nil {
		defer c.close()
	}
	if err != nil {
		return err
	}
	if err := c.frameworks(ctx, pageTasks); err != nil {
		return err
	}
	if err := c.agents(ctx, mastertest.SwarmOptions{Agents: min(b.agents, pageAgents), Register: c.withTasks(pageTasks)}); err != nil {
		return err
	}
	if err := c.quiet(ctx); err != nil {
		return err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.NoSandbox, chromedp.WindowSize(1280, 900))
	ctx, cancel := chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	// What the browser tells beyond what chromedp knows is no error.
	ctx, cancel = chromedp.NewContext(ctx, chromedp.WithErrorf(func(string, ...any) {}))
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	noteWhole := chromedp.ActionFunc(func(ctx context.Context) error {
		_, err := page.AddScriptToEvaluateOnNewDocument(notesWhole).Do(ctx)
		return err
	})
	if err := chromedp.Run(ctx, noteWhole); err != nil {
		return err
	}
	t := b.table(fmt.Sprintf("Web UI at %d agents with %d tasks each, in Chromium on the same machine", min(b.agents, pageAgents), pageTasks), "page",
		"painted, ms", "whole, ms", "an order is seen, ms", "heap, MiB")
	t.note("painted: the first contents; whole: live, with all rows; an order: from the click until its effect is in the page")
	defer t.print()
	home := "http://" + c.master.fields["http"]
	for _, name := range []string{"overview", "agents", "tasks"} {
		if err := b.pageRow(ctx, t, home, name, c.swarm.Agent(pageOrders).ID()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// notesWhole notes when a page first says that it has all, and has drawn it.
const notesWhole = `addEventListener("DOMContentLoaded", () => {
  const look = () => document.getElementById("live").textContent.includes("live") ? requestAnimationFrame(() => { window.whole = performance.now(); }) : requestAnimationFrame(look);
  look();
});`

// orders has an agent of the table out of service and back again, and answers
// how long each took to be seen, in ms.
const orders = `(async (agent, times) => {
  const took = [];
  for (let i = 0; i < times; i++) {
    const [verb, word] = i %% 2 ? ["activate", "active"] : ["deactivate", "deactivated"];
    const began = performance.now();
    const answer = await fetch("/v1/order/" + verb, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ agent_id: agent }) });
    if (!answer.ok) throw new Error(await answer.text());
    await new Promise((done) => {
      const look = () => document.querySelector(".rows .state")?.textContent === word ? done() : requestAnimationFrame(look);
      look();
    });
    took.push(performance.now() - began);
  }
  return took;
})(%q, %d)`

func (b *bench) pageRow(ctx context.Context, t *table, home, name, agent string) error {
	path := home + "/ui/"
	if name != "overview" {
		path += name
	}
	var painted, whole, heap []float64
	for range pageVisits {
		var p, w, h float64
		err := chromedp.Run(ctx, chromedp.Navigate(path), chromedp.Poll("window.whole", &w),
			chromedp.Evaluate(`performance.getEntriesByName("first-contentful-paint")[0].startTime`, &p),
			chromedp.Evaluate(`performance.memory.usedJSHeapSize / (1 << 20)`, &h))
		if err != nil {
			return err
		}
		painted, whole, heap = append(painted, p), append(whole, w), append(heap, h)
	}
	seen := "-"
	if name == "agents" {
		// Of the table, what the filter leaves: this agent.
		var took []float64
		wait := func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }
		err := chromedp.Run(ctx, chromedp.Navigate(path+"?q="+agent), chromedp.Poll("window.whole", nil),
			chromedp.Evaluate(fmt.Sprintf(orders, agent, pageOrders), &took, wait))
		if err != nil {
			return err
		}
		seen = number(median(took))
	}
	t.row(name, number(median(painted)), number(median(whole)), seen, number(slices.Max(heap)))
	return nil
}
