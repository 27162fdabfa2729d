import { h, fill, ask, card, facts, state, number, quantities, time, link, paths, problem, confirm, command, duration } from "../dom.js";
import { Table } from "../table.js";
import { store } from "../store.js";
import { taskColumns } from "./tasks.js";
import { offerColumns } from "./cluster.js";

export function frameworks(page, context) {
  const table = new Table({
    label: "Frameworks", rows: () => store.frameworks.values(), sort: "Name.asc", empty: "No framework has subscribed.",
    columns: [
      { title: "Name", value: (f) => f.name || f.id, cell: (f) => link(paths.framework(f.id), f.name || f.id), width: "minmax(140px, 2fr)" },
      { title: "State", value: (f) => f.state, cell: (f) => state(f.state), width: "130px" },
      { title: "Roles", value: (f) => (f.roles || []).join(", "), width: "minmax(80px, 1fr)" },
      { title: "Tasks", value: (f) => f.tasks || 0, num: true, width: "60px" },
      { title: "Offers", value: (f) => f.offers || 0, num: true, width: "60px", wide: true },
      { title: "Allocated", value: (f) => quantities(f.allocated), width: "minmax(120px, 2fr)", wide: true },
      { title: "User", value: (f) => f.user || "", width: "80px", wide: true },
      { title: "Why no offer?", value: () => "", cell: (f) => (f.state === "completed" ? "" : link(paths.why(f.id), "why?")), width: "70px" },
      { title: "ID", value: (f) => f.id, cell: (f) => h("span", { class: "mono" }, f.id), width: "minmax(120px, 1.5fr)", wide: true },
    ],
  });
  context.onLeave(() => table.close());
  fill(page, h("h1", {}, "Frameworks"), table.element);
  context.follow(["frameworks"], () => table.refresh());
}

export function framework(page, context, id) {
  const title = h("h1"), sub = h("p", { class: "sub" }), buttons = h("div", { class: "tools" }), said = h("div"), known = card("About");
  const tasks = new Table({ name: "tasks", label: "Tasks", columns: taskColumns().filter((c) => c.title !== "Framework"), rows: () => (store.tasksOfFramework.get(id) || new Map()).values(), sort: "Launched.desc", empty: "It has no task." });
  const offers = new Table({ name: "offers", label: "Offers", columns: offerColumns().filter((c) => c.title !== "Framework"), rows: () => [...store.offers.values()].filter((o) => o.framework_id === id), empty: "Nothing is offered to it now." });
  context.onLeave(() => { tasks.close(); offers.close(); });
  fill(page, title, sub, buttons, said, known, h("h2", {}, "Tasks"), tasks.element, h("h2", {}, "Offers"), offers.element);
  fill(title, store.frameworkName(id));
  context.follow(["frameworks"], () => {
    const f = store.frameworks.get(id);
    if (!f) {
      if (store.ready) fill(sub, problem(`No framework ${id} is known.`));
      return;
    }
    fill(title, f.name || id);
    fill(sub, state(f.state), " · ", h("span", { class: "mono" }, id));
    fill(known, facts([["roles", (f.roles || []).map((r) => [r, " "])], ["suppressed in", (f.suppressed_roles || []).join(", ")], ["user", f.user], ["principal", f.principal],
      ["host", f.hostname], ["web UI", f.webui_url && /^https?:/.test(f.webui_url) ? h("a", { href: f.webui_url, rel: "noreferrer noopener", target: "_blank" }, f.webui_url) : f.webui_url],
      ["failover timeout", f.failover_timeout ? duration(f.failover_timeout) : "none"], ["allocated", quantities(f.allocated) || "nothing"], ["offered", quantities(f.offered) || "nothing"],
      ["capabilities", (f.capabilities || []).join(", ")], ["registered", time(f.registered)], ["back since", time(f.reregistered)], ["ended", time(f.unregistered)]]));
    fill(buttons, f.state === "completed" ? "" : [h("a", { href: paths.why(id) }, h("button", { type: "button", tabindex: "-1" }, "Why no offer?")),
      h("button", { type: "button", class: "danger", onclick: () => confirm(`Tear down ${f.name || id}`, "The framework ends and all its tasks are killed. It cannot come back with this id.", "Tear down", [],
        async () => { await command("teardown", { framework_id: id }); return "Torn down."; }, said) }, "Tear down")]);
  });
  context.follow(["tasks"], () => tasks.refresh());
  context.follow(["offers"], () => offers.refresh());
}

export function why(page, context, id) {
  if (!id) {
    const list = h("div");
    fill(page, h("h1", {}, "Why no offer?"), h("p", { class: "sub" }, "Choose the framework that waits."), list);
    context.follow(["frameworks"], () => fill(list, [...store.frameworks.values()].filter((f) => f.state !== "completed").sort((a, b) => (a.name < b.name ? -1 : 1))
      .map((f) => h("p", {}, link(paths.why(f.id), f.name || f.id), " ", state(f.state), h("span", { class: "hint" }, ` ${(f.roles || []).join(", ")}`)))));
    return;
  }
  const body = h("div"), perAgent = h("div");
  const title = h("h1", {}, `Why is ${store.frameworkName(id)} not offered more?`);
  fill(page, title, h("p", { class: "sub" }, link(paths.framework(id), "the framework"), " · what the master knows and what the allocator answers, every five seconds"), body, h("h2", {}, "Agent by agent"),
    h("div", { class: "tools" }, h("button", { type: "button", onclick: () => agentByAgent() }, "Ask for every agent")), perAgent);
  const show = async () => {
    let x;
    try {
      x = await ask("/v1/explain", { framework_id: id });
    } catch (e) {
      fill(body, problem(e.message));
      return;
    }
    fill(title, `Why is ${x.framework?.name || id} not offered more?`);
    fill(body, x.allocator_error ? problem(`The allocator gave no answer: ${x.allocator_error}`) : "",
      x.causes?.length ? card("In all its roles", x.causes.map(cause)) : "",
      (x.roles || []).map((r) => [h("h2", {}, `Role ${r.role}`), card("", r.summary ? h("p", {}, r.summary) : "",
        facts([["position", r.positions ? `${r.position} of ${r.positions}` : ""], ["its share", share(r.framework_share)], ["the role's share", share(r.role_share)], ["suppressed", r.suppressed ? "yes" : ""]]),
        (r.causes || []).map(cause),
        (r.reasons || []).length > 1 ? h("ul", {}, r.reasons.map((n) => h("li", {}, `${number(n.agents)} agents: ${n.reason}`))) : "",
        !(r.causes || []).length && !(r.reasons || []).length ? h("p", { class: "hint" }, "Nothing stands against offers in this role.") : "")]));
  };
  context.every(5000, show);

  let table;
  context.onLeave(() => table?.close());
  const agentByAgent = async () => {
    let x;
    try {
      x = await ask("/v1/explain", { framework_id: id, agents: "true" });
    } catch (e) {
      fill(perAgent, problem(e.message));
      return;
    }
    const rows = (x.roles || []).flatMap((r) => (r.agents || []).map((a) => ({ ...a, role: r.role })));
    table?.close();
    table = new Table({
      label: "Agents", rows: () => rows, sort: "Agent.asc", empty: "No agent is concerned.",
      columns: [
        { title: "Agent", value: (a) => a.hostname || a.agent_id, cell: (a) => link(paths.agent(a.agent_id), a.hostname || a.agent_id) },
        { title: "Role", value: (a) => a.role, width: "100px" },
        { title: "Reason", value: (a) => a.reason || "", width: "minmax(180px, 3fr)" },
        { title: "Passes in", value: (a) => a.remaining_seconds || 0, cell: (a) => (a.remaining_seconds ? duration(a.remaining_seconds) : ""), num: true, width: "80px" },
        { title: "State", value: (a) => a.state || "", cell: (a) => (a.state ? state(a.state) : ""), width: "110px", wide: true },
        { title: "Free", value: (a) => quantities(a.free), width: "minmax(140px, 2fr)", wide: true },
      ],
    });
    fill(perAgent, table.element);
  };
}

const share = (x) => (x ? `${Math.round(x * 1000) / 10}%` : "0%");
const cause = (c) => h("div", { class: "cause" }, h("strong", {}, c.text), c.remaining_seconds ? h("span", { class: "hint" }, ` passes in ${duration(c.remaining_seconds)}`) : "",
  c.advice ? h("div", { class: "advice" }, c.advice) : "", (c.details || []).length ? h("ul", {}, c.details.map((d) => h("li", {}, d))) : "");
