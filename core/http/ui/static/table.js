// A table of any length: only the rows in sight are in the document. It sorts
// by a click on a title, filters by words, and keeps both in the page's address.
import { h, fill } from "./dom.js";

const rowHeight = 34;
const spare = 8; // rows above and below the sight

// A column: {title, value(row), cell(row), width, num, wide}. `value` is what is
// sorted and searched by; `cell` what is shown, else the value; `wide` columns
// are left out on a phone.
export class Table {
  constructor({ columns, rows, sort, empty, label, name }) {
    Object.assign(this, { columns, source: rows, emptyText: empty || "There is nothing here.", name: name || "" });
    const query = new URLSearchParams(location.search);
    const [by, direction] = (query.get(this.key("sort")) || sort || "").split(".");
    this.sortBy = Math.max(0, columns.findIndex((c) => c.title === by));
    this.down = direction === "desc";
    this.words = query.get(this.key("q")) || "";
    this.list = [];
    this.nodes = new Map();
    this.build(label);
    this.refresh();
  }

  key(k) { return this.name ? `${this.name}.${k}` : k; }

  build(label) {
    this.input = h("input", { type: "search", placeholder: "Filter: words, or -word", "aria-label": `Filter ${label}`, value: this.words,
      oninput: () => { this.words = this.input.value; this.remember(); this.refresh(); } });
    this.count = h("span", { class: "count", role: "status" });
    this.template = () => {
      const phone = matchMedia("(max-width: 720px)").matches;
      return this.columns.filter((c) => !phone || !c.wide).map((c) => c.width || "minmax(90px, 1fr)").join(" ");
    };
    this.head = h("div", { class: "head", role: "row" }, this.columns.map((c, i) =>
      h("span", { role: "columnheader", class: `cell ${c.num ? "num" : ""} ${c.wide ? "wide" : ""}` },
        h("button", { type: "button", title: `Sort by ${c.title}`, onclick: () => this.sort(i) }, c.title))));
    this.rows = h("div", { class: "rows", role: "rowgroup" });
    this.scroll = h("div", { class: "scroll", tabindex: "0", onscroll: () => this.draw(), onkeydown: (e) => this.keys(e) }, this.head, this.rows);
    this.element = h("div", {}, h("div", { class: "tools" }, this.input, this.count),
      h("div", { class: "table", role: "table", "aria-label": label }, this.scroll));
    this.observer = new ResizeObserver(() => this.draw());
    this.observer.observe(this.scroll);
  }

  sort(i) {
    this.down = this.sortBy === i ? !this.down : Boolean(this.columns[i].num);
    this.sortBy = i;
    this.remember();
    this.refresh();
  }

  remember() {
    const query = new URLSearchParams(location.search);
    const put = (k, v) => (v ? query.set(this.key(k), v) : query.delete(this.key(k)));
    put("q", this.words);
    put("sort", `${this.columns[this.sortBy].title}.${this.down ? "desc" : "asc"}`);
    history.replaceState(null, "", `${location.pathname}?${query}`);
  }

  // refresh takes the rows anew. Costs are in proportion to all rows: callers
  // do it as often as the store says that something changed.
  refresh() {
    let list = [...this.source()];
    const total = list.length;
    const words = this.words.toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      list = list.filter((row) => {
        const text = this.columns.map((c) => c.value(row)).join("\u0001").toLowerCase();
        return words.every((w) => (w.startsWith("-") && w.length > 1 ? !text.includes(w.slice(1)) : text.includes(w)));
      });
    }
    const column = this.columns[this.sortBy];
    const keyed = list.map((row, i) => ({ row, key: column.value(row) ?? "", i }));
    const sign = this.down ? -1 : 1;
    keyed.sort((a, b) => (a.key < b.key ? -sign : a.key > b.key ? sign : a.i - b.i));
    this.list = keyed.map((k) => k.row);
    fill(this.count, total === this.list.length ? `${total.toLocaleString("en")}` : `${this.list.length.toLocaleString("en")} of ${total.toLocaleString("en")}`);
    this.head.querySelectorAll("button").forEach((b, i) => {
      if (i === this.sortBy) b.setAttribute("aria-sort", this.down ? "descending" : "ascending");
      else b.removeAttribute("aria-sort");
    });
    this.stale = true;
    this.draw();
  }

  draw() {
    const template = this.template();
    // All rows are as wide as the least that the columns need, or as the place.
    const least = template.match(/\d+px/g).reduce((sum, px) => sum + parseInt(px, 10) + 12, 12);
    this.head.style.gridTemplateColumns = template;
    this.head.style.minWidth = this.rows.style.minWidth = `${least}px`;
    this.rows.style.height = `${this.list.length * rowHeight}px`;
    if (!this.list.length) {
      fill(this.rows, h("div", { class: "empty" }, this.words ? "Nothing fits the filter." : this.emptyText));
      this.rows.style.height = "auto";
      this.nodes.clear();
      return;
    }
    const first = Math.max(0, Math.floor(this.scroll.scrollTop / rowHeight) - spare);
    const last = Math.min(this.list.length, Math.ceil((this.scroll.scrollTop + (this.scroll.clientHeight || 700)) / rowHeight) + spare);
    if (!this.stale && this.first === first && this.last === last && this.drawn === template) return;
    // A row that has the focus keeps it: it is drawn anew only when it changed.
    const kept = new Map();
    const nodes = [];
    for (let i = first; i < last; i++) {
      const row = this.list[i];
      let node = this.nodes.get(row);
      if (!node || this.drawn !== template) node = this.row(row, template);
      node.style.transform = `translateY(${i * rowHeight}px)`;
      node.setAttribute("aria-rowindex", i + 2);
      kept.set(row, node);
      nodes.push(node);
    }
    this.nodes = kept;
    Object.assign(this, { first, last, stale: false, drawn: template });
    const same = nodes.length === this.rows.children.length && nodes.every((n, i) => this.rows.children[i] === n);
    if (!same) this.rows.replaceChildren(...nodes);
  }

  row(row, template) {
    return h("div", { class: "row", role: "row", style: { gridTemplateColumns: template } }, this.columns.map((c) => {
      const content = c.cell ? c.cell(row) : c.value(row);
      return h("span", { role: "cell", class: `cell ${c.num ? "num" : ""} ${c.wide ? "wide" : ""}`, title: typeof content === "string" ? content : String(c.value(row) ?? "") }, content);
    }));
  }

  keys(e) {
    if (e.target !== this.scroll) return;
    const step = { ArrowDown: rowHeight, ArrowUp: -rowHeight, PageDown: this.scroll.clientHeight - rowHeight, PageUp: rowHeight - this.scroll.clientHeight }[e.key];
    if (step === undefined) return;
    e.preventDefault();
    this.scroll.scrollTop += step;
  }

  close() { this.observer.disconnect(); }
}
