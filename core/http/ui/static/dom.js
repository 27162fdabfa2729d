// Elements, and the words and numbers that are in them.

// h makes an element: h("a", {href: "/", onclick: f}, "text", child, [children]).
export function h(tag, attributes, ...children) {
  const e = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) e.addEventListener(name.slice(2), value);
    else if (name === "style") Object.assign(e.style, value);
    else e.setAttribute(name, value === true ? "" : value);
  }
  add(e, children);
  return e;
}

function add(e, children) {
  for (const c of children) {
    if (Array.isArray(c)) add(e, c);
    else if (c instanceof Node) e.append(c);
    else if (c !== undefined && c !== null && c !== false) e.append(String(c));
  }
}

// fill replaces what is in an element.
export function fill(e, ...children) {
  const fragment = document.createDocumentFragment();
  add(fragment, children);
  e.replaceChildren(fragment);
  return e;
}

export const link = (href, ...children) => h("a", { href }, ...children);
export const paths = {
  agent: (id) => `/ui/agents/${encodeURIComponent(id)}`,
  framework: (id) => `/ui/frameworks/${encodeURIComponent(id)}`,
  why: (id) => `/ui/why/${encodeURIComponent(id)}`,
  task: (framework, id) => `/ui/tasks/${encodeURIComponent(framework)}/${encodeURIComponent(id)}`,
  files: (agent, path) => `/ui/files/${encodeURIComponent(agent)}?path=${encodeURIComponent(path)}`,
  tasks: (filter) => `/ui/tasks?q=${encodeURIComponent(filter)}`,
};

// How good or bad a state is.
const moods = {
  good: ["active", "healthy", "leading", "running", "finished", "accepted", "registered", "good"],
  warn: ["disconnected", "draining", "drained", "deactivated", "withheld", "degraded", "starting", "staging", "killing",
    "recovering", "restarting", "outstanding", "unhealthy task", "killed", "connecting", "down", "dropped"],
  bad: ["unreachable", "unhealthy", "failed", "error", "lost", "gone", "gone_by_operator", "stopped", "unknown", "declined"],
};
export function mood(word) {
  const w = String(word).toLowerCase().replace(/^task_/, "");
  return Object.keys(moods).find((m) => moods[m].includes(w)) || "";
}
export const plainState = (s) => String(s || "").replace(/^TASK_/, "").toLowerCase().replaceAll("_", " ");
export function state(word, text) {
  return h("span", { class: `state ${mood(word)}` }, text || plainState(word));
}

export const number = (n) => (n === undefined ? "0" : Number.isInteger(n) ? n.toLocaleString("en") : (Math.round(n * 100) / 100).toLocaleString("en"));

// bytes shows a size, of MiB where it is what a resource is counted in.
export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let i = 0;
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024;
  return `${n >= 100 || i === 0 ? Math.round(n) : Math.round(n * 10) / 10} ${units[i]}`;
}
export const amount = (name, n) => (name === "mem" || name === "disk" ? bytes((n || 0) * 1048576) : number(n || 0));

export function duration(seconds) {
  if (!(seconds >= 0)) return "";
  if (seconds < 60) return `${Math.floor(seconds)}s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)}m ${Math.floor(seconds % 60)}s`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)}h ${Math.floor((seconds % 3600) / 60)}m`;
  return `${Math.floor(seconds / 86400)}d ${Math.floor((seconds % 86400) / 3600)}h`;
}
export const since = (at) => (at ? duration((Date.now() - Date.parse(at)) / 1000) : "");
export function time(at) {
  if (!at) return "";
  const d = new Date(at);
  return h("time", { datetime: at, title: d.toISOString() }, d.toLocaleString());
}

// quantities is a line for a Struct of resources.
export const quantities = (q) =>
  Object.keys(q || {}).sort(byResource).filter((k) => q[k] !== 0 && q[k] !== "").map((k) => `${k} ${typeof q[k] === "number" ? amount(k, q[k]) : q[k]}`).join(", ");

// bar shows how much of something is used and offered.
export function bar(name, total, used, offered) {
  const part = (n) => `${total > 0 ? Math.min(100, (100 * n) / total) : 0}%`;
  const text = `${amount(name, used)} of ${amount(name, total)}` + (offered ? `, ${amount(name, offered)} offered` : "");
  return h("div", { class: "barline" }, h("span", {}, name),
    h("div", { class: "bar", role: "img", "aria-label": `${name}: ${text}`, title: text },
      h("i", { class: "used", style: { width: part(used) } }), h("i", { class: "offered", style: { width: part(offered) } })),
    h("span", { class: "n" }, text));
}
export function bars(total, used, offered) {
  return Object.keys(total || {}).filter((k) => typeof total[k] === "number").sort(byResource)
    .map((k) => bar(k, total[k], (used || {})[k] || 0, (offered || {})[k] || 0));
}
const order = ["cpus", "mem", "disk", "gpus"];
const rank = (name) => (order.includes(name) ? order.indexOf(name) : order.length);
export const byResource = (a, b) => rank(a) - rank(b) || (a < b ? -1 : 1);

export const facts = (rows) => h("dl", { class: "facts" }, rows.filter(([, v]) => v !== undefined && v !== null && v !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]));
export const card = (title, ...children) => h("section", { class: "card" }, title && h("h2", {}, title), ...children);
export const problem = (text) => h("div", { class: "problem", role: "alert" }, text);
export const note = (text) => h("div", { class: "note", role: "status" }, text);

// ask asks the master something; an error's text is the master's sentence.
export async function ask(path, query) {
  const all = new URLSearchParams(query || {}).toString();
  const answer = await fetch(all ? `${path}?${all}` : path);
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
  return answer.json();
}
export async function command(verb, body) {
  const answer = await fetch(`/v1/order/${verb}`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) });
  if (!answer.ok) throw new Error((await answer.text()).trim() || answer.statusText);
  return answer.json();
}

// confirm asks before something that cannot be taken back, and does it. Answers
// and errors are shown in `where`.
export function confirm(title, text, verb, fields, act, where) {
  const inputs = fields.map((f) => [f, h("input", { type: f.type || "text", name: f.name, value: f.value || "", placeholder: f.placeholder || "" })]);
  const dialog = h("dialog", { "aria-label": title }, h("h1", {}, title), h("p", {}, text),
    inputs.map(([f, i]) => h("label", {}, f.type === "checkbox" ? [i, " ", f.label] : [f.label, " ", i])),
    h("div", { class: "buttons" },
      h("button", { type: "button", onclick: () => dialog.close() }, "Cancel"),
      h("button", { type: "button", class: "danger", onclick: async () => {
        dialog.close();
        const values = Object.fromEntries(inputs.map(([f, i]) => [f.name, f.type === "checkbox" ? i.checked : i.value.trim()]));
        try {
          const said = await act(values);
          fill(where, note(said || "Done."));
        } catch (e) {
          fill(where, problem(e.message));
        }
      } }, verb)));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
