// Lines over time, and bars with marks, as SVG.
const space = "http://www.w3.org/2000/svg";
function s(tag, attributes, text) {
  const e = document.createElementNS(space, tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  if (text !== undefined) e.textContent = text;
  return e;
}

// wide is a drawing that is as wide as its place, drawn anew when that changes.
function wide(draw) {
  const place = document.createElement("div");
  let width = 0;
  new ResizeObserver(() => {
    const now = Math.round(place.clientWidth);
    if (!now || now === width) return;
    width = now;
    place.replaceChildren(draw(width));
  }).observe(place); // it ends with the element
  return place;
}

export const colours = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)"];

// lines draws series: [{name, points: [[seconds, value], …]}], of one unit.
// `show` writes a value; `top` is the least end of the scale.
export const lines = (series, options) => wide((width) => drawLines(series, options, width));
function drawLines(series, { show, top, height = 150, label }, width) {
  const left = 58, right = 8, under = 18, over = 8;
  const svg = s("svg", { viewBox: `0 0 ${width} ${height}`, width, height, class: "plot", role: "img", "aria-label": label });
  const all = series.flatMap((x) => x.points);
  if (all.every((p) => p[0] === all[0][0])) {
    svg.append(s("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "collecting…"));
    return svg;
  }
  const from = Math.min(...all.map((p) => p[0])), to = Math.max(...all.map((p) => p[0]));
  const most = Math.max(top || 0, ...all.map((p) => p[1])) || 1;
  const x = (t) => left + ((t - from) / (to - from || 1)) * (width - left - right);
  const y = (v) => height - under - (v / most) * (height - under - over);
  for (const part of [0, 0.5, 1]) {
    svg.append(s("line", { class: "grid", x1: left, x2: width - right, y1: y(most * part), y2: y(most * part) }));
    svg.append(s("text", { x: left - 6, y: y(most * part) + 4, "text-anchor": "end" }, show(most * part)));
  }
  const clock = (t) => new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  svg.append(s("text", { x: left, y: height - 4 }, clock(from)));
  svg.append(s("text", { x: width - right, y: height - 4, "text-anchor": "end" }, clock(to)));
  series.forEach((one, i) => {
    svg.append(s("path", { d: one.points.map((p, n) => `${n ? "L" : "M"}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join(""), stroke: colours[i % colours.length] }));
  });
  const cross = s("line", { class: "cross", y1: over, y2: height - under, visibility: "hidden" });
  const said = s("text", { y: over + 4, "text-anchor": "middle", visibility: "hidden" });
  svg.append(cross, said);
  svg.addEventListener("pointermove", (e) => {
    const box = svg.getBoundingClientRect();
    const t = from + (((e.clientX - box.left) / box.width) * width - left) / (width - left - right) * (to - from);
    if (t < from || t > to) return hide();
    const at = (one) => one.points.reduce((a, b) => (Math.abs(b[0] - t) < Math.abs(a[0] - t) ? b : a));
    cross.setAttribute("x1", x(t)); cross.setAttribute("x2", x(t)); cross.setAttribute("visibility", "visible");
    said.textContent = `${clock(t)}  ` + series.filter((o) => o.points.length).map((o) => `${o.name} ${show(at(o)[1])}`).join("  ");
    said.setAttribute("x", width < 360 ? width / 2 : Math.min(Math.max(x(t), 180), width - 170)); said.setAttribute("visibility", "visible");
  });
  const hide = () => { cross.setAttribute("visibility", "hidden"); said.setAttribute("visibility", "hidden"); };
  svg.addEventListener("pointerleave", hide);
  return svg;
}

// shares draws a bar for each: [{name, href, share, guarantee, limit, text}], in
// parts of 1; guarantee and limit are marks.
export const shares = (list, label) => wide((width) => drawShares(list, label, width));
function drawShares(list, label, width) {
  const row = 26, left = width < 500 ? 90 : 170, right = 90, letters = width < 500 ? 12 : 26;
  const most = Math.max(0.01, ...list.map((r) => Math.max(r.share, r.guarantee || 0, Math.min(r.limit || 0, 1))));
  const svg = s("svg", { viewBox: `0 0 ${width} ${Math.max(1, list.length) * row}`, width, height: Math.max(1, list.length) * row, class: "plot", role: "img", "aria-label": label });
  const x = (v) => left + (Math.min(v, most) / most) * (width - left - right);
  list.forEach((r, i) => {
    const y = i * row + 5;
    const a = s("a", { href: r.href });
    const name = s("text", { x: left - 8, y: y + 12, "text-anchor": "end", class: "name" }, r.name.length > letters ? `…${r.name.slice(1 - letters)}` : r.name);
    a.append(name);
    svg.append(a, s("rect", { x: left, y, width: width - left - right, height: 15, rx: 4, fill: "var(--free)" }),
      s("rect", { x: left, y, width: Math.max(0, x(r.share) - left), height: 15, rx: 4, fill: "var(--used)" }));
    for (const [mark, colour] of [[r.guarantee, "var(--good)"], [r.limit, "var(--bad)"]]) {
      if (mark > 0 && mark <= most) svg.append(s("line", { x1: x(mark), x2: x(mark), y1: y - 3, y2: y + 18, stroke: colour, "stroke-width": 2 }));
    }
    svg.append(s("text", { x: width - right + 8, y: y + 12 }, r.text));
  });
  return svg;
}
