// The router: every page has an address, and a page is a function that fills an
// element and says how to follow what changes.
import { h, fill, problem } from "./dom.js";
import { store } from "./store.js";
import { overview } from "./pages/overview.js";
import { agents, agent } from "./pages/agents.js";
import { frameworks, framework, why } from "./pages/frameworks.js";
import { roles } from "./pages/roles.js";
import { tasks, task } from "./pages/tasks.js";
import { files } from "./pages/files.js";
import { offers, maintenance, plugins } from "./pages/cluster.js";

// [title in the navigation, pattern, page]
const routes = [
  ["Overview", /^\/ui\/?$/, overview],
  ["Agents", /^\/ui\/agents$/, agents],
  ["", /^\/ui\/agents\/([^/]+)$/, agent],
  ["Frameworks", /^\/ui\/frameworks$/, frameworks],
  ["", /^\/ui\/frameworks\/([^/]+)$/, framework],
  ["Why no offer?", /^\/ui\/why(?:\/([^/]+))?$/, why],
  ["Roles", /^\/ui\/roles$/, roles],
  ["Tasks", /^\/ui\/tasks$/, tasks],
  ["", /^\/ui\/tasks\/([^/]+)\/([^/]+)$/, task],
  ["", /^\/ui\/files\/([^/]+)$/, files],
  ["Offers", /^\/ui\/offers$/, offers],
  ["Maintenance", /^\/ui\/maintenance$/, maintenance],
  ["Plugins", /^\/ui\/plugins$/, plugins],
];
const homes = { Overview: "/ui/", "Why no offer?": "/ui/why" };

const page = document.getElementById("page");
const nav = document.getElementById("nav");
const live = document.getElementById("live");
let leave = () => {};

function navigate() {
  for (const [, title] of [...nav.children].entries()) title.removeAttribute("aria-current");
  const path = location.pathname;
  for (const link of nav.children) {
    const home = link.getAttribute("href");
    if (path === home || (home !== "/ui/" && path.startsWith(`${home}/`)) || (home === "/ui/" && path === "/ui")) link.setAttribute("aria-current", "page");
  }
}

function open() {
  leave();
  leave = () => {};
  const found = routes.map(([title, pattern, show]) => ({ title, match: location.pathname.match(pattern), show })).find((r) => r.match);
  navigate();
  if (!found) {
    fill(page, h("h1", {}, "There is no such page"), h("p", {}, `${location.pathname} leads nowhere; the pages are above.`));
    return;
  }
  const ends = [];
  const context = {
    // follow calls f now and whenever one of these collections changed.
    follow: (wanted, f) => {
      f();
      ends.push(store.on((dirty) => {
        if (dirty.has("all") || wanted.some((k) => dirty.has(k))) f();
      }));
    },
    // every calls f now and then again and again, while the page is in sight.
    every: (ms, f) => {
      const tick = () => { if (!document.hidden) f(); };
      tick();
      const timer = setInterval(tick, ms);
      ends.push(() => clearInterval(timer));
    },
    onLeave: (f) => ends.push(f),
  };
  leave = () => { for (const end of ends) end(); };
  fill(page);
  try {
    found.show(page, context, ...found.match.slice(1).map((x) => x && decodeURIComponent(x)));
  } catch (e) {
    fill(page, problem(`This page failed: ${e.message}`));
    throw e;
  }
  const heading = page.querySelector("h1");
  document.title = `${heading ? heading.textContent : found.title} · Mezzo`;
}

for (const [title, pattern] of routes.filter(([t]) => t)) {
  nav.append(h("a", { href: homes[title] || pattern.source.replaceAll("\\", "").replace(/[$^]/g, "") }, title));
}

document.addEventListener("click", (e) => {
  const link = e.target.closest("a");
  const href = link && link.getAttribute("href");
  if (!href || !href.startsWith("/ui") || link.target || link.hasAttribute("download") || e.ctrlKey || e.metaKey || e.shiftKey || e.button) return;
  e.preventDefault();
  history.pushState(null, "", href);
  open();
  page.focus({ preventScroll: true });
  scrollTo(0, 0);
});
addEventListener("popstate", open);
// "/" goes to the filter of the page.
addEventListener("keydown", (e) => {
  if (e.key !== "/" || e.target.closest("input, textarea, select")) return;
  const input = page.querySelector("input[type=search]");
  if (input) { e.preventDefault(); input.focus(); }
});

store.on(() => {
  live.className = store.connected ? "" : "bad";
  fill(live, store.connected ? (store.ready ? "● live" : "loading…") : `not connected: ${store.why}`);
});
store.start();
open();
