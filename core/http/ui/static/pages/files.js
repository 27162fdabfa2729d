// The browser of sandboxes, with the end of a file as it grows.
import { h, fill, ask, bytes, link, paths, problem, time } from "../dom.js";
import { Table } from "../table.js";
import { store } from "../store.js";

const tail = 256 << 10; // bytes that are kept in sight
const piece = 64 << 10;

export function files(page, context, agentID) {
  const path = new URLSearchParams(location.search).get("path") || "/";
  const name = path.split("/").pop();
  const body = h("div");
  const where = h("div");
  fill(page, h("h1", {}, name || "Sandbox"), where, body);
  context.follow(["agents"], () => fill(where, crumbs(agentID, path)));
  show(body, context, agentID, path);
}

function crumbs(agentID, path) {
  const parts = path.split("/").filter(Boolean);
  const root = parts.indexOf("runs") + 2; // what is above a run is no sandbox
  return h("p", { class: "crumbs mono" }, link(paths.agent(agentID), store.agentName(agentID)), parts.map((p, i) => {
    const here = `/${parts.slice(0, i + 1).join("/")}`;
    return [" / ", i + 1 >= root && root > 1 && i + 1 < parts.length ? link(paths.files(agentID, here), p) : p];
  }));
}

async function show(body, context, agentID, path) {
  const base = `/v1/agent/${encodeURIComponent(agentID)}`;
  let list;
  try {
    list = (await ask(`${base}/files`, { path })).files || [];
  } catch (e) {
    fill(body, problem(e.message));
    return;
  }
  if (!list.length && (await size(base, path)) !== undefined) return follow(body, context, agentID, base, path);
  const table = new Table({
    label: "Files", rows: () => list, sort: "Name.asc", empty: "The directory is empty.",
    columns: [
      { title: "Name", value: (f) => f.path.split("/").pop(), cell: (f) => link(paths.files(agentID, f.path), f.path.split("/").pop() + (directory(f) ? "/" : "")), width: "minmax(160px, 3fr)" },
      { title: "Size", value: (f) => f.size || 0, cell: (f) => (directory(f) ? "" : bytes(f.size || 0)), num: true, width: "90px" },
      { title: "Mode", value: (f) => mode(f.mode || 0), cell: (f) => h("span", { class: "mono" }, mode(f.mode || 0)), width: "100px", wide: true },
      { title: "Owner", value: (f) => `${f.uid || ""} ${f.gid || ""}`, width: "110px", wide: true },
      { title: "Changed", value: (f) => f.mtime?.nanoseconds || 0, cell: (f) => (f.mtime ? time(new Date(f.mtime.nanoseconds / 1e6).toISOString()) : ""), width: "170px", wide: true },
      { title: "Get", value: () => "", cell: (f) => (directory(f) ? "" : h("a", { href: `${base}/download?path=${encodeURIComponent(f.path)}`, download: f.path.split("/").pop() }, "download")), width: "80px" },
    ],
  });
  context.onLeave(() => table.close());
  fill(body, table.element);
}

const directory = (f) => ((f.mode || 0) & 0o170000) === 0o040000;
const mode = (m) => (((m & 0o170000) === 0o040000 ? "d" : (m & 0o170000) === 0o120000 ? "l" : "-") + [6, 3, 0].map((s) => "rwx".split("").map((c, i) => ((m >> s) & (4 >> i) ? c : "-")).join("")).join(""));

async function size(base, path) {
  const answer = await fetch(`${base}/read?${new URLSearchParams({ path, offset: 0, length: 0 })}`);
  return answer.ok ? Number(answer.headers.get("X-File-Size")) : undefined;
}

// follow shows the end of a file and what is added to it.
function follow(body, context, agentID, base, path) {
  const log = h("pre", { class: "log mono", tabindex: "0", "aria-label": path });
  const said = h("span", { class: "count" });
  const keep = h("input", { type: "checkbox", checked: true, id: "follow" });
  const href = `${base}/download?path=${encodeURIComponent(path)}`;
  fill(body, h("div", { class: "tools" }, h("a", { href, download: path.split("/").pop() }, "Download"), h("label", { for: "follow" }, keep, " follow the end"), said), log);
  let offset = -1, busy = false;
  const decoder = new TextDecoder();
  context.every(1000, async () => {
    if (busy) return;
    busy = true;
    try {
      for (;;) {
        if (offset < 0) offset = Math.max(0, ((await size(base, path)) ?? 0) - piece);
        const answer = await fetch(`${base}/read?${new URLSearchParams({ path, offset, length: piece })}`);
        if (!answer.ok) throw new Error(await answer.text());
        const whole = Number(answer.headers.get("X-File-Size"));
        if (whole < offset) { offset = 0; fill(log); continue; } // it was rotated
        const data = new Uint8Array(await answer.arrayBuffer());
        fill(said, bytes(whole));
        if (!data.length) break;
        offset += data.length;
        log.append(decoder.decode(data, { stream: true }));
        if (log.textContent.length > tail) log.textContent = log.textContent.slice(-tail / 2);
        if (keep.checked) log.scrollTop = log.scrollHeight;
        if (data.length < piece) break;
      }
    } catch (e) {
      fill(said, h("span", { class: "state bad" }, e.message));
    } finally {
      busy = false;
    }
  });
}
