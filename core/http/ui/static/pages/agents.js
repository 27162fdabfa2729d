import { h, fill, ask, card, facts, bars, state, amount, bytes, quantities, since, time, link, paths, problem, note, command, confirm, number } from "../dom.js";
import { Table } from "../table.js";
import { lines } from "../plot.js";
import { store } from "../store.js";
import { taskColumns } from "./tasks.js";

// percent is how much of the scarcest resource of an agent is allocated.
const percent = (a) => Math.max(0, ...Object.entries(a.resources || {}).filter(([, v]) => typeof v === "number" && v > 0).map(([k, v]) => (100 * ((a.allocated || {})[k] || 0)) / v));

export function agents(page, context) {
  const table = new Table({
    label: "Agents", rows: () => store.agents.values(), sort: "Host.asc", empty: "No agent has registered.",
    columns: [
      { title: "Host", value: (a) => a.hostname || a.id, cell: (a) => link(paths.agent(a.id), a.hostname || a.id), width: "minmax(140px, 2fr)" },
      { title: "State", value: (a) => a.state, cell: (a) => state(a.state), width: "130px" },
      { title: "Why", value: (a) => a.reason || "", width: "minmax(80px, 2fr)", wide: true },
      { title: "Used", value: percent, cell: (a) => `${Math.round(percent(a))}%`, num: true, width: "60px" },
      { title: "Tasks", value: (a) => a.tasks || 0, num: true, width: "60px" },
      { title: "Resources", value: (a) => quantities(a.resources), width: "minmax(160px, 2fr)", wide: true },
      { title: "Attributes", value: (a) => attributes(a), width: "minmax(100px, 1.5fr)", wide: true },
      { title: "ID", value: (a) => a.id, cell: (a) => h("span", { class: "mono" }, a.id), width: "minmax(120px, 1.5fr)", wide: true },
    ],
  });
  context.onLeave(() => table.close());
  fill(page, h("h1", {}, "Agents"), table.element);
  context.follow(["agents"], () => table.refresh());
}

const attributes = (a) => Object.entries(a.attributes || {}).map(([k, v]) => `${k}=${v}`).join(", ");

export function agent(page, context, id) {
  const title = h("h1"), sub = h("p", { class: "sub" }), said = h("div"), buttons = h("div", { class: "tools" });
  const resources = card("Resources"), known = card("About"), containers = h("div", { class: "cards" }), pluginList = card("Plugins");
  const columns = taskColumns().filter((c) => c.title !== "Agent");
  const table = new Table({ label: "Tasks", columns, rows: () => (store.tasksOfAgent.get(id) || new Map()).values(), sort: "Launched.desc", empty: "No task of this agent is known." });
  context.onLeave(() => table.close());
  fill(page, title, sub, buttons, said, h("div", { class: "cards" }, resources, known, pluginList), h("h2", {}, "Containers"), containers, h("h2", {}, "Tasks"), table.element);
  fill(title, store.agentName(id));

  context.follow(["agents"], () => {
    const a = store.agents.get(id);
    if (!a) {
      if (store.ready) fill(sub, problem(`No agent ${id} is known: it may have been removed.`));
      return;
    }
    fill(title, a.hostname || id);
    fill(sub, state(a.state), a.reason ? ` ${a.reason}` : "", " · ", h("span", { class: "mono" }, id));
    fill(resources, h("h2", {}, "Resources"), bars(a.resources, a.allocated, a.offered), h("p", { class: "hint" }, Object.entries(a.resources || {}).filter(([, v]) => typeof v === "string").map(([k, v]) => `${k} ${v}`).join(" ")));
    fill(known, h("h2", {}, "About"), facts([["attributes", attributes(a) || "none"], ["version", a.version], ["rpc", a.rpc_address], ["http", a.http_address],
      ["registered", time(a.registered)], ["back since", time(a.reregistered)], ["unavailable from", a.unavailability ? time(a.unavailability.start) : ""],
      ["asked to leave", a.inverse_offers && a.inverse_offers.map((o) => h("div", {}, link(paths.framework(o.framework_id), store.frameworkName(o.framework_id)), " ", state(o.status)))]]));
    fill(buttons, agentButtons(a, said));
  });
  context.follow(["tasks"], () => table.refresh());

  context.every(10000, async () => {
    try {
      const s = await ask(`/v1/agent/${encodeURIComponent(id)}/state`);
      fill(pluginList, h("h2", {}, "Plugins"), (s.plugins || []).map((p) => h("div", {}, state(p.state), ` ${p.id} ${p.version || ""}`, p.reason ? h("div", { class: "hint" }, p.reason) : "")));
    } catch (e) {
      fill(pluginList, h("h2", {}, "Plugins"), h("p", { class: "hint" }, e.message));
    }
  });
  liveUsage(context, id, (u) => !u.parent, containers);
}

// agentButtons are what an operator can do with an agent.
export function agentButtons(a, said) {
  const act = (title, text, verb, order, fields = [], body = () => ({})) => h("button", { type: "button", class: "danger", onclick: () =>
    confirm(`${title} ${a.hostname || a.id}`, text, verb, fields, async (v) => { await command(order, { agent_id: a.id, ...body(v) }); return `${title} ${a.hostname}: ordered.`; }, said) }, title);
  const away = ["draining", "drained", "deactivated"].includes(a.state);
  return [
    away ? act("Activate", "It is offered again.", "Activate", "activate") :
      act("Drain", "It is offered no more, and its tasks are asked to end. Frameworks start them elsewhere.", "Drain", "drain",
        [{ name: "grace", label: "Grace at most, in seconds", placeholder: "as each task says" }], (v) => (v.grace ? { max_grace_seconds: Number(v.grace) } : {})),
    away ? "" : act("Deactivate", "It is offered no more. What runs goes on.", "Deactivate", "deactivate"),
    act("Mark gone", "The agent is given up for good: its tasks are told to be gone, and it is never admitted again. Only for a machine that will not come back.", "Mark gone", "gone"),
  ];
}

// liveUsage plots what containers use, every two seconds.
export function liveUsage(context, agentID, wanted, where) {
  const past = new Map(); // by container: {cpu: [[t, cores]], memory: [[t, bytes]]}
  context.every(2000, async () => {
    let all;
    try {
      all = ((await ask(`/v1/agent/${encodeURIComponent(agentID)}/usage`)).usages || []).filter(wanted);
    } catch (e) {
      fill(where, h("p", { class: "hint" }, e.message));
      return;
    }
    const now = Date.now() / 1000;
    for (const u of all) {
      const p = past.get(u.container) || { cpu: [], memory: [] };
      if (p.last) p.cpu.push([now, Math.max(0, ((u.cpu_seconds || 0) - p.last[1]) / (now - p.last[0]))]);
      p.memory.push([now, u.memory_bytes || 0]);
      p.last = [now, u.cpu_seconds || 0];
      p.cpu = p.cpu.slice(-150);
      p.memory = p.memory.slice(-150);
      past.set(u.container, p);
    }
    for (const id of past.keys()) if (!all.some((u) => u.container === id)) past.delete(id);
    const shown = all.slice(0, 30);
    fill(where, shown.map((u) => {
      const p = past.get(u.container);
      return card("", h("h3", {}, u.task_id ? link(paths.task(u.framework_id, u.task_id), u.task_id) : u.executor_id || u.container),
        facts([["cpu", p.cpu.length ? `${number(p.cpu.at(-1)[1])} cores` : "…"],
          ["memory", bytes(u.memory_bytes || 0) + (u.memory_limit_bytes ? ` of ${bytes(u.memory_limit_bytes)}` : "")],
          ["processes", u.processes], ["disk", u.disk_bytes ? bytes(u.disk_bytes) : ""]]),
        lines([{ name: "cpu", points: p.cpu }], { show: (v) => `${number(v)}`, top: 0.1, height: 90, label: "CPU, cores" }),
        lines([{ name: "memory", points: p.memory }], { show: bytes, top: 1 << 20, height: 90, label: "Memory" }));
    }), all.length > shown.length ? h("p", { class: "hint" }, `${all.length - shown.length} more are not plotted; each task's page plots its own.`) : "",
    all.length ? "" : h("p", { class: "hint" }, "Nothing runs."));
  });
}
