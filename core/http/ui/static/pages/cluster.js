// Offers, maintenance, and plugins with the configuration.
import { h, fill, ask, card, facts, state, quantities, since, time, link, paths, problem, note, command, confirm, number, duration } from "../dom.js";
import { Table } from "../table.js";
import { store } from "../store.js";
import { agentButtons } from "./agents.js";

export const offerColumns = () => [
  { title: "Offer", value: (o) => o.id, cell: (o) => h("span", { class: "mono" }, o.id), width: "minmax(140px, 1.5fr)" },
  { title: "Framework", value: (o) => store.frameworkName(o.framework_id), cell: (o) => link(paths.framework(o.framework_id), store.frameworkName(o.framework_id)), width: "minmax(90px, 1fr)" },
  { title: "Agent", value: (o) => o.hostname || o.agent_id, cell: (o) => link(paths.agent(o.agent_id), o.hostname || o.agent_id), width: "minmax(90px, 1fr)" },
  { title: "Role", value: (o) => o.role || "", width: "100px" },
  { title: "Resources", value: (o) => quantities(o.resources), width: "minmax(140px, 2fr)", wide: true },
  { title: "Age", value: (o) => o.created || "", cell: (o) => since(o.created), width: "80px", num: true },
];

export function offers(page, context) {
  const table = new Table({ label: "Offers", columns: offerColumns(), rows: () => store.offers.values(), sort: "Age.desc", empty: "Nothing is offered at this moment." });
  context.onLeave(() => table.close());
  fill(page, h("h1", {}, "Offers"), h("p", { class: "sub" }, "What frameworks have been offered and have not answered."), table.element);
  context.follow(["offers"], () => table.refresh());
}

export function maintenance(page, context) {
  const said = h("div");
  const away = (a) => a.unavailability || ["draining", "drained", "deactivated", "unreachable", "withheld", "disconnected"].includes(a.state);
  const table = new Table({
    label: "Agents in maintenance", rows: () => [...store.agents.values()].filter(away), sort: "Host.asc", empty: "No agent is drained, deactivated, away, or scheduled for maintenance.",
    columns: [
      { title: "Host", value: (a) => a.hostname || a.id, cell: (a) => link(paths.agent(a.id), a.hostname || a.id), width: "minmax(140px, 1.5fr)" },
      { title: "State", value: (a) => a.state, cell: (a) => state(a.state), width: "120px" },
      { title: "Why", value: (a) => a.reason || "", width: "minmax(100px, 2fr)", wide: true },
      { title: "Tasks left", value: (a) => a.tasks || 0, num: true, width: "80px" },
      { title: "Unavailable from", value: (a) => a.unavailability?.start || "", cell: (a) => (a.unavailability ? time(a.unavailability.start) : ""), width: "170px" },
      { title: "For", value: (a) => a.unavailability?.duration_seconds || 0, cell: (a) => (a.unavailability ? duration(a.unavailability.duration_seconds) || "no end planned" : ""), width: "110px", wide: true },
      { title: "Asked to leave", value: (a) => (a.inverse_offers || []).map((o) => o.status).join(" "), cell: (a) => (a.inverse_offers || []).map((o) => [link(paths.framework(o.framework_id), store.frameworkName(o.framework_id)), " ", state(o.status), " "]), width: "minmax(120px, 2fr)" },
      { title: "Orders", value: () => "", cell: (a) => h("span", { class: "tools" }, agentButtons(a, said)), width: "280px" },
    ],
  });
  context.onLeave(() => table.close());
  const schedule = card("Schedule");
  fill(page, h("h1", {}, "Maintenance"), h("p", { class: "sub" }, "Agents that are drained, deactivated, away or scheduled to be; drain others from their own pages."), said, schedule, table.element);
  context.follow(["agents"], () => table.refresh());
  context.every(5000, async () => {
    try {
      const all = (await ask("/v1/maintenance")).machines || [];
      const name = (m) => [m.hostname, m.ip].filter(Boolean).join(" ");
      fill(schedule, h("h2", {}, "Schedule"), all.length ? h("ul", {}, all.map((s) => h("li", {}, h("strong", {}, name(s.machine)), " ", state(s.mode), s.unavailability ? [" from ", time(s.unavailability.start),
        s.unavailability.duration_seconds ? ` for ${duration(s.unavailability.duration_seconds)}` : ", no end planned"] : "", " ",
      s.mode === "down" ? machineButton("Bring up", "machine-up", s.machine, "Its agents may register again, and its window ends.", said) :
        machineButton("Take down", "machine-down", s.machine, "Its agents are shut down with their tasks, and refused until it is up again.", said)))) :
        h("p", { class: "hint" }, "Nothing is planned. Plan with: mezzo maintenance schedule set FILE"));
    } catch (e) {
      fill(schedule, h("h2", {}, "Schedule"), problem(e.message));
    }
  });
}

const machineButton = (title, order, machine, text, said) => h("button", { type: "button", class: "danger", onclick: () =>
  confirm(`${title} ${machine.hostname || machine.ip}`, text, title, [], async () => { await command(order, { machines: [machine] }); return "Ordered."; }, said) }, title);

export function plugins(page, context) {
  const said = h("div"), list = h("div", { class: "cards" }), settings = card("Settings");
  const reload = h("button", { type: "button", class: "primary", onclick: async () => {
    reload.disabled = true;
    try {
      const r = await command("reload");
      const changes = (r.changes || []).map((c) => `${c.what}: ${c.from || "nothing"} → ${c.to || "nothing"}`);
      const restart = (r.restart || []).map((c) => `${c.what}: ${c.from || "nothing"} → ${c.to || "nothing"} (after a restart)`);
      fill(said, r.failed ? problem(`Nothing has changed.\n${r.diagnostics}`) : note([...changes, ...restart, r.diagnostics || ""].filter(Boolean).join("\n") || "The configuration says what runs: nothing to change."));
    } catch (e) {
      fill(said, problem(e.message));
    }
    reload.disabled = false;
    configured();
  } }, "Reload the configuration");
  fill(page, h("h1", {}, "Plugins and configuration"), h("div", { class: "tools" }, reload), said, list, h("h2"), settings);
  context.follow(["plugins"], () => fill(list, [...store.plugins.values()].sort((a, b) => (a.id < b.id ? -1 : 1)).map((p) =>
    card(p.id, facts([["state", [state(p.state), p.since ? ` for ${since(p.since)}` : ""]], ["why", p.reason], ["version", p.version], ["contract", p.contract_version], ["restarts", number(p.restarts || 0)],
      ["last error", p.last_error], ["pid", p.pid], ["binary", h("span", { class: "mono" }, p.path)], ["checksum", h("span", { class: "mono" }, p.checksum)],
      ["can", (p.capabilities || []).join(", ")], ...(p.endpoints || []).map((e) => [e.name, e.address])])))));
  const configured = async () => {
    try {
      fill(settings, h("h2", {}, "Settings of the leading master"), facts((await ask("/v1/settings")).map((s) => [s.name, h("span", { class: "mono" }, s.value)])));
    } catch (e) {
      fill(settings, problem(e.message));
    }
  };
  configured();
}
