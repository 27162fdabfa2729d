// The cluster at a glance.
import { h, fill, ask, card, facts, bars, state, number, amount, since, time, link, problem, byResource } from "../dom.js";
import { lines, shares, colours } from "../plot.js";
import { store } from "../store.js";
import { roleShares } from "./roles.js";

export function overview(page, context) {
  const head = h("p", { class: "sub" });
  const counts = h("div", { class: "cards" }), use = card("Resources"), plot = card("Allocated, part of the whole, last hour");
  const health = card("Plugins"), fairness = card("Dominant share of roles"), leader = card("Leader"), trouble = h("div");
  fill(page, h("h1", {}, "Overview"), head, trouble, counts, h("h2"), h("div", { class: "cards" }, use, plot, fairness, health, leader));

  const status = async () => {
    let s;
    try {
      s = await ask("/v1/status");
    } catch (e) {
      fill(trouble, problem(e.message));
      return;
    }
    fill(trouble, s.trouble ? problem(`This master was elected and could not lead: ${s.trouble}`) : []);
    fill(head, state(s.leadership), ` · Mezzo ${s.version || ""} · leads since `, s.elected ? since(s.elected) : "—");
    const a = s.agents || {}, f = s.frameworks || {}, t = s.tasks || {};
    fill(counts,
      one("Agents", "/ui/agents", a.active, [a.unreachable && h("span", { class: "state bad" }, `${number(a.unreachable)} unreachable`), `${number(a.total)} in all`]),
      one("Frameworks", "/ui/frameworks", f.active, [`${number(f.total)} in all`]),
      one("Tasks running", "/ui/tasks?q=running", t.running, [`${number(t.active)} not ended`]),
      one("Offers outstanding", "/ui/offers", s.offers, []));
    fill(use, h("h2", {}, "Resources"), bars(s.total, s.allocated, s.offered),
      h("div", { class: "legend" }, h("span", {}, swatch("var(--used)"), "allocated"), h("span", {}, swatch("var(--offered)"), "offered")));
    fill(leader, h("h2", {}, "Leader"), facts([["master", h("span", { class: "mono" }, s.master_id)], ["epoch", s.epoch], ["elected", time(s.elected)], ["started", time(s.started)],
      ...(s.endpoints || []).map((e) => [e.name, h("span", { class: "mono" }, e.address)])]));
  };
  context.every(2000, status);

  context.every(10000, async () => {
    try {
      const past = await ask("/v1/history");
      const kinds = [...new Set(past.flatMap((p) => Object.keys(p.total || {})))].filter((k) => past.some((p) => p.total[k] > 0)).sort(byResource).slice(0, 4);
      const series = kinds.map((k) => ({ name: k, points: past.filter((p) => p.total[k] > 0).map((p) => [p.at, (100 * (p.allocated[k] || 0)) / p.total[k]]) }));
      fill(plot, h("h2", {}, "Allocated, part of the whole, last hour"), lines(series, { show: (v) => `${Math.round(v)}%`, top: 100, label: `Allocated: ${kinds.join(", ")}` }),
        h("div", { class: "legend" }, kinds.map((k, i) => h("span", {}, swatch(colours[i]), k))));
    } catch (e) {
      fill(plot, h("h2", {}, "Allocated"), problem(e.message));
    }
  });

  context.follow(["plugins"], () => {
    const list = [...store.plugins.values()];
    fill(health, h("h2", {}, "Plugins"), list.map((p) => h("div", {}, state(p.state), " ", link("/ui/plugins", p.id), p.reason ? h("span", { class: "hint" }, ` ${p.reason}`) : "")),
      list.length ? "" : h("p", { class: "hint" }, "None yet."));
  });
  context.follow(["roles", "agents"], () => {
    const list = roleShares().slice(0, 8);
    fill(fairness, h("h2", {}, "Dominant share of roles"), list.length ? shares(list, "Dominant share of roles") : h("p", { class: "hint" }, "No role has anything."), link("/ui/roles", "all roles"));
  });
}

const swatch = (colour) => { const i = h("i"); i.style.background = colour; return i; };
const one = (title, href, n, under) => card(title, h("div", { class: "big" }, link(href, number(n))), h("div", { class: "hint" }, under.filter(Boolean).map((u) => [u, " "])));
