import { h, fill, card, quantities, number } from "../dom.js";
import { Table } from "../table.js";
import { shares } from "../plot.js";
import { store } from "../store.js";

// part is how much of the cluster something is, by the resource of which it is
// most.
function part(amounts, total) {
  return Math.max(0, ...Object.entries(amounts || {}).filter(([k]) => total[k] > 0).map(([k, v]) => v / total[k]));
}
function least(amounts, total) {
  const parts = Object.entries(amounts || {}).filter(([k]) => total[k] > 0).map(([k, v]) => v / total[k]);
  return parts.length ? Math.min(...parts) : 0;
}

// whole is what all agents have together.
function whole() {
  const total = {};
  for (const a of store.agents.values()) for (const [k, v] of Object.entries(a.resources || {})) if (typeof v === "number") total[k] = (total[k] || 0) + v;
  return total;
}

// shareText is a role's share of the resource of which it has most.
function shareText(role, total) {
  const most = part(role.allocated, total);
  const name = Object.keys(role.allocated || {}).find((k) => total[k] > 0 && role.allocated[k] / total[k] === most);
  return `${Math.round(most * 1000) / 10}% ${most ? name : ""}`;
}

// roleShares are the roles as bars, the largest share first.
export function roleShares() {
  const total = whole();
  return [...store.roles.values()].map((r) => ({
    name: r.name, href: `/ui/roles?q=${encodeURIComponent(r.name)}`, share: part(r.allocated, total), guarantee: part(r.guarantee, total), limit: least(r.limit, total),
    text: shareText(r, total),
  })).sort((a, b) => b.share - a.share || (a.name < b.name ? -1 : 1));
}

export function roles(page, context) {
  let total = whole();
  const table = new Table({
    label: "Roles", rows: () => store.roles.values(), sort: "Share.desc", empty: "No framework has a role, and none is configured.",
    columns: [
      { title: "Role", value: (r) => r.name, width: "minmax(120px, 1.5fr)" },
      { title: "Weight", value: (r) => r.weight ?? 1, num: true, width: "70px" },
      { title: "Share", value: (r) => part(r.allocated, total), cell: (r) => shareText(r, total), num: true, width: "100px" },
      { title: "Allocated", value: (r) => quantities(r.allocated), width: "minmax(120px, 2fr)" },
      { title: "Guarantee", value: (r) => quantities(r.guarantee), width: "minmax(100px, 1.5fr)", wide: true },
      { title: "Limit", value: (r) => quantities(r.limit), width: "minmax(100px, 1.5fr)", wide: true },
      { title: "Counted", value: (r) => quantities(r.consumed), width: "minmax(100px, 1.5fr)", wide: true },
      { title: "Frameworks", value: (r) => (r.frameworks || []).length, cell: (r) => number((r.frameworks || []).length), num: true, width: "90px" },
      { title: "Set by", value: (r) => r.quota_source || r.weight_source || "", width: "100px", wide: true },
    ],
  });
  context.onLeave(() => table.close());
  const plot = card("Dominant share");
  fill(page, h("h1", {}, "Roles"), h("p", { class: "sub" }, "Fairness at a glance: the part of the cluster that a role has of the resource it has most of. Green marks are guarantees, red ones limits."), plot, h("h2", {}, "All roles"), table.element);
  context.follow(["roles", "agents"], () => {
    total = whole();
    table.refresh();
    const list = roleShares().slice(0, 30);
    fill(plot, h("h2", {}, "Dominant share"), list.length ? shares(list, "Dominant share of roles") : h("p", { class: "hint" }, "No role has anything."));
  });
}
