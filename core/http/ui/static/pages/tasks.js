import { h, fill, ask, card, facts, state, plainState, mood, quantities, time, since, link, paths, problem, confirm, command } from "../dom.js";
import { Table } from "../table.js";
import { store } from "../store.js";
import { liveUsage } from "./agents.js";

export const taskColumns = () => [
  { title: "Task", value: (t) => t.id, cell: (t) => link(paths.task(t.framework_id, t.id), t.id), width: "minmax(140px, 2fr)" },
  { title: "Name", value: (t) => t.name || "", width: "minmax(80px, 1.2fr)", wide: true },
  { title: "State", value: (t) => plainState(t.state), cell: (t) => [state(t.state), t.healthy === false ? h("span", { class: "state bad" }, " unhealthy") : ""], width: "120px" },
  { title: "Why", value: (t) => [t.reason ? t.reason.replace(/^REASON_/, "").toLowerCase().replaceAll("_", " ") : "", t.message || ""].filter(Boolean).join(": "), width: "minmax(80px, 2fr)", wide: true },
  { title: "Framework", value: (t) => store.frameworkName(t.framework_id), cell: (t) => link(paths.framework(t.framework_id), store.frameworkName(t.framework_id)), width: "minmax(80px, 1fr)", wide: true },
  { title: "Agent", value: (t) => store.agentName(t.agent_id), cell: (t) => link(paths.agent(t.agent_id), store.agentName(t.agent_id)), width: "minmax(90px, 1fr)" },
  { title: "Role", value: (t) => t.role || "", width: "90px", wide: true },
  { title: "Resources", value: (t) => quantities(t.resources), width: "minmax(110px, 1.5fr)", wide: true },
  { title: "Launched", value: (t) => t.launched || "", cell: (t) => (t.launched ? `${since(t.launched)} ago` : ""), width: "100px", wide: true },
];

export function tasks(page, context) {
  const table = new Table({ label: "Tasks", columns: taskColumns(), rows: () => store.tasks.values(), sort: "Launched.desc", empty: "No task was launched." });
  context.onLeave(() => table.close());
  fill(page, h("h1", {}, "Tasks"), table.element);
  context.follow(["tasks"], () => table.refresh());
}

export function task(page, context, frameworkID, id) {
  const sub = h("p", { class: "sub" }), said = h("div"), known = card("About"), line = card("What happened"), buttons = h("div", { class: "tools" }), usage = h("div", { class: "cards" });
  fill(page, h("h1", {}, id), sub, buttons, said, h("div", { class: "cards" }, known, line), h("h2", {}, "Usage"), usage);
  let seen = "", plotted = false;
  context.follow(["tasks"], async () => {
    const t = store.tasks.get(`${frameworkID} ${id}`);
    const stamp = JSON.stringify(t);
    if (stamp === seen) return;
    seen = stamp;
    let d;
    try {
      d = await ask("/v1/task", { framework_id: frameworkID, task_id: id });
    } catch (e) {
      if (store.ready) fill(sub, problem(e.message));
      return;
    }
    const info = d.task, agentID = info.agent_id?.value;
    fill(sub, state(info.state), t?.healthy === undefined ? "" : [" · ", state(t.healthy ? "healthy" : "unhealthy")], " · of ", link(paths.framework(frameworkID), store.frameworkName(frameworkID)), " on ", link(paths.agent(agentID), store.agentName(agentID)));
    const container = info.statuses?.map((s) => s.container_status?.container_id?.value).filter(Boolean).at(-1) || t?.container_id;
    const addresses = [...new Set((info.statuses || []).flatMap((s) => s.container_status?.network_infos || []).flatMap((n) => n.ip_addresses || []).map((a) => a.ip_address))];
    fill(known, h("h2", {}, "About"), facts([["name", info.name], ["role", d.role], ["user", info.user], ["executor", info.executor_id?.value], ["container", container], ["addresses", addresses.join(", ")],
      ["resources", quantities(t?.resources)], ["launched", time(d.launched)], ["started", time(d.started)], ["finished", time(d.finished)],
      ["labels", (info.labels?.labels || []).map((l) => `${l.key}=${l.value ?? ""}`).join(", ")]]));
    const statuses = [...(info.statuses || [])].reverse();
    fill(line, h("h2", {}, "What happened"), h("ol", { class: "timeline" },
      statuses.map((s) => h("li", { class: mood(s.state) }, state(s.state), " ", s.timestamp ? h("time", {}, new Date(s.timestamp * 1000).toLocaleString()) : "",
        h("div", { class: "hint" }, [s.reason ? s.reason.replace(/^REASON_/, "").toLowerCase().replaceAll("_", " ") : "", s.message || "", s.healthy === undefined ? "" : s.healthy ? "healthy" : "not healthy"].filter(Boolean).join(" · ")))),
      h("li", {}, "launched ", time(d.launched))));
    fill(buttons, container ? h("a", { href: paths.files(agentID, `/frameworks/${frameworkID}/executors/${info.executor_id?.value || id}/runs/${container}`) }, h("button", { type: "button", tabindex: "-1" }, "Sandbox")) : "",
      d.finished ? "" : h("button", { type: "button", class: "danger", onclick: () => confirm(`Kill ${id}`, "The task is asked to end, and killed after its grace period.", "Kill", [],
        async () => { await command("kill", { task_id: id, framework_id: frameworkID }); return "It has been asked to end."; }, said) }, "Kill"));
    if (!plotted && !d.finished) {
      plotted = true;
      liveUsage(context, agentID, (u) => u.framework_id === frameworkID && (u.task_id === id || u.container === container), usage);
    }
    if (d.finished) fill(usage, h("p", { class: "hint" }, "It has ended."));
  });
}
