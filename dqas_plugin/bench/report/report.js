"use strict";

// Tables: a click on a head sorts, the other way round at the second click. What has no number stays last.

const collator = new Intl.Collator("en", { numeric: true });

function compare(first, second, number) {
  return number ? Number(first) - Number(second) : collator.compare(first, second);
}

function sort(table, head, place) {
  const number = head.hasAttribute("data-number");
  const before = head.getAttribute("aria-sort");
  const usual = number ? "descending" : "ascending";
  const other = number ? "ascending" : "descending";
  const now = before === usual ? other : usual;
  for (const one of table.tHead.rows[0].cells) one.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", now);
  const sign = now === "ascending" ? 1 : -1;
  const keyed = table.original.map((row) => {
    const cell = row.cells[place];
    const key = number ? cell.dataset.sort : cell.textContent.trim();
    return { row, key: key === undefined || key === "" ? null : key };
  });
  keyed.sort((first, second) => {
    if (first.key === null || second.key === null) return (first.key === null) - (second.key === null);
    return sign * compare(first.key, second.key, number);
  });
  table.tBodies[0].append(...keyed.map((one) => one.row));
}

function makeSortable(table) {
  table.original = [...table.tBodies[0].rows];
  [...table.tHead.rows[0].cells].forEach((head, place) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head, place));
    head.append(button);
    head.setAttribute("aria-sort", "none");
  });
}

// Panels: one at a time.

function makeChooser(select) {
  const show = () => {
    for (const option of select.options) document.getElementById(option.value).hidden = !option.selected;
  };
  select.addEventListener("change", show);
  show();
}

// Curves.

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function made(name, attributes, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const SHAPES = [
  (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0z`,
  (r) => `M${-r} ${-r}h${2 * r}v${2 * r}h${-2 * r}z`,
  (r) => `M0 ${-1.3 * r}L${1.2 * r} ${r}H${-1.2 * r}z`,
  (r) => `M0 ${-1.35 * r}L${1.35 * r} 0L0 ${1.35 * r}L${-1.35 * r} 0z`,
  (r) => `M0 ${1.3 * r}L${1.2 * r} ${-r}H${-1.2 * r}z`,
];

function ticks(low, high, count) {
  const rough = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k += 1) found.push(k * step);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return found.map((value) => ({ value, text: (value + 0).toFixed(digits).replace("-", "−") }));
}

class Curves {
  constructor(figure, data) {
    this.data = data;
    this.measure = data.measures[0];
    this.hidden = new Set(data.series.filter((one) => !one.shown));
    this.plot = made("div", { class: "plot" });
    this.tip = made("div", { class: "tip", hidden: "" });
    this.legend = made("div", { class: "legend", role: "group", "aria-label": "Methods shown" });
    figure.prepend(this.controls(), this.plot, this.legend);
    for (const one of data.series) this.legend.append(this.button(one));
    this.width = 0;
    new ResizeObserver(() => this.resized()).observe(this.plot);
    this.draw();
  }

  controls() {
    const select = made("select", {});
    for (const one of this.data.measures) select.append(made("option", { value: one.key }, one.name));
    select.addEventListener("change", () => {
      this.measure = this.data.measures[select.selectedIndex];
      this.draw();
    });
    const choices = made("div", { class: "choices" });
    for (const [text, hide] of [["All", false], ["None", true]]) {
      const button = made("button", { type: "button" }, text);
      button.addEventListener("click", () => {
        this.hidden = new Set(hide ? this.data.series : []);
        this.draw();
      });
      choices.append(button);
    }
    return made("div", { class: "controls" }, made("label", {}, "Show ", select), choices);
  }

  button(series) {
    const button = made("button", { type: "button" }, swatch(series), series.name);
    button.addEventListener("click", () => {
      if (!this.hidden.delete(series)) this.hidden.add(series);
      this.draw();
    });
    for (const [event, only] of [["mouseenter", series], ["focus", series], ["mouseleave", null], ["blur", null]]) {
      button.addEventListener(event, () => this.emphasise(only));
    }
    return button;
  }

  emphasise(only) {
    for (const group of this.plot.querySelectorAll("g.series")) {
      group.classList.toggle("dim", only !== null && !this.hidden.has(only) && group.series !== only);
    }
  }

  resized() {
    if (this.plot.clientWidth !== this.width) this.draw();
  }

  get visible() {
    const key = this.measure.key;
    return this.data.series
      .filter((one) => !this.hidden.has(one))
      .map((one) => ({ series: one, points: one.points.filter((point) => point[key]) }))
      .filter((one) => one.points.length);
  }

  scales(shown) {
    const budgets = this.data.budgets.map((one) => one.images);
    const values = shown.flatMap((one) => one.points.flatMap((point) => point[this.measure.key].slice(0, 3)));
    const known = values.filter((value) => value !== null);
    if (this.measure.key === "gain") known.push(0);
    let low = known.length ? Math.min(...known) : 0;
    let high = known.length ? Math.max(...known) : 100;
    const space = Math.max((high - low) * 0.06, 0.2);
    low -= space;
    high += space;
    if (this.measure.key !== "gain") [low, high] = [Math.max(0, low), Math.min(100.5, high)];
    const { left, right, top, bottom, width, height } = this.box;
    const inner = width - left - right;
    const spread = Math.min(inner * (budgets.length > 1 ? 0.05 : 0.8), 60 * shown.length);
    const [first, last] = [budgets[0], budgets[budgets.length - 1]];
    const along = last >= 4 * first ? Math.log : (value) => value;
    const reach = inner - spread - 24;
    const middle = (place) => {
      if (budgets.length === 1) return left + inner / 2;
      return left + 12 + spread / 2 + (reach * (along(budgets[place]) - along(first))) / (along(last) - along(first));
    };
    return {
      low,
      high,
      middle,
      x: (place, number) => middle(place) + (shown.length > 1 ? spread * (number / (shown.length - 1) - 0.5) : 0),
      y: (value) => top + ((high - value) / (high - low)) * (height - top - bottom),
    };
  }

  draw() {
    this.width = this.plot.clientWidth;
    const width = Math.max(260, this.width - 14);
    this.box = { width, height: Math.min(440, Math.max(280, 0.5 * width)), left: 44, right: 26, top: 26, bottom: 44 };
    const shown = this.visible;
    const scales = this.scales(shown);
    const { height } = this.box;
    const svg = drawn("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group" });
    svg.setAttribute("aria-label", `${this.measure.name} by budget; arrow keys go from point to point`);
    const groups = shown.map((one, number) => this.curve(one, number, scales));
    svg.append(...this.axes(scales), ...groups);
    svg.addEventListener("keydown", (event) => this.walk(event));
    this.points = groups.map((group) => [...group.querySelectorAll(".point")]);
    this.points[0]?.[0]?.setAttribute("tabindex", 0);
    this.tip.hidden = true;
    this.plot.replaceChildren(svg, this.tip);
    this.data.series.forEach((one, place) => {
      this.legend.children[place].setAttribute("aria-pressed", !this.hidden.has(one));
    });
  }

  axes(scales) {
    const { left, right, top, bottom, width, height } = this.box;
    const found = [drawn("text", { x: 2, y: 14 }, `${this.measure.name}, ${this.measure.unit}`)];
    for (const { value, text } of ticks(scales.low, scales.high, height / 60)) {
      const y = scales.y(value);
      const zero = this.measure.key === "gain" && Math.abs(value) < 1e-9;
      found.push(drawn("line", { class: zero ? "zero" : "axis", x1: left, x2: width - right, y1: y, y2: y }));
      found.push(drawn("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, text));
    }
    let last = -Infinity;
    this.data.budgets.forEach((budget, place) => {
      const x = scales.middle(place);
      found.push(drawn("line", { class: "axis", x1: x, x2: x, y1: top, y2: height - bottom }));
      if (x - last < 52) return; // no room for its label
      last = x;
      found.push(drawn("text", { x, y: height - bottom + 18, "text-anchor": "middle" }, budget.label));
      const images = `${budget.images.toLocaleString("en")} images`;
      const text = this.data.budgets.length > 5 || width < 480 ? budget.images.toLocaleString("en") : images;
      found.push(drawn("text", { x, y: height - bottom + 34, "text-anchor": "middle" }, text));
    });
    return found;
  }

  curve({ series, points }, number, scales) {
    const key = this.measure.key;
    const at = (point) => `${scales.x(point.x, number).toFixed(1)} ${scales.y(point[key][0]).toFixed(1)}`;
    const path = points.map((point, place) => `${place ? "L" : "M"}${at(point)}`).join("");
    const hollow = series.dash === 0 ? " hollow" : "";
    const group = drawn("g", { class: `series ${series.colour}${hollow}` });
    group.series = series;
    group.append(drawn("path", { class: `line dash${series.dash}`, d: path }));
    for (const point of points) group.append(this.point(series, point, scales.x(point.x, number), scales));
    return group;
  }

  point(series, point, x, scales) {
    const [value, low, high, text] = point[this.measure.key];
    const budget = this.data.budgets[point.x];
    const words = `${text}, ${point.seeds} ${point.seeds === 1 ? "seed" : "seeds"}`;
    const group = drawn("g", { class: "point", tabindex: -1, role: "img", "data-x": point.x });
    group.setAttribute("aria-label", `${series.name} at ${budget.label}: ${words}`);
    if (low !== null) {
      const [y1, y2] = [scales.y(high), scales.y(low)];
      const d = `M${x} ${y1}V${y2}M${x - 3} ${y1}h6M${x - 3} ${y2}h6`;
      group.append(drawn("path", { class: "error", d }));
    }
    const y = scales.y(value);
    group.append(drawn("path", { class: "marker", d: SHAPES[series.shape](4), transform: `translate(${x} ${y})` }));
    group.append(drawn("circle", { class: "catch", cx: x, cy: y, r: 11 }));
    const show = () => this.tell(series, `${budget.label}: ${words}`, x, y);
    group.addEventListener("mouseenter", show);
    group.addEventListener("focus", show);
    for (const event of ["mouseleave", "blur"]) group.addEventListener(event, () => this.quiet());
    return group;
  }

  tell(series, words, x, y) {
    this.tip.replaceChildren(made("b", {}, series.name), words);
    this.tip.hidden = false;
    const room = this.plot.clientWidth - this.tip.offsetWidth - 8;
    this.tip.style.left = `${Math.max(4, Math.min(room, x - this.tip.offsetWidth / 2))}px`;
    const above = y - this.tip.offsetHeight - 8;
    this.tip.style.top = `${above > 0 ? above : y + 26}px`;
    this.emphasise(series);
  }

  quiet() {
    this.tip.hidden = true;
    this.emphasise(null);
  }

  walk(event) {
    const lines = this.points;
    const line = lines.findIndex((one) => one.includes(document.activeElement));
    if (line < 0) return;
    const place = lines[line].indexOf(document.activeElement);
    const steps = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    const next = lines[(line + step[0] + lines.length) % lines.length];
    const alike = next.findIndex((one) => one.dataset.x === lines[line][place].dataset.x);
    const wanted = step[0] ? (alike < 0 ? 0 : alike) : (place + step[1] + next.length) % next.length;
    document.activeElement.setAttribute("tabindex", -1);
    next[wanted].setAttribute("tabindex", 0);
    next[wanted].focus();
  }
}

function swatch(series) {
  const hollow = series.dash === 0 ? " hollow" : "";
  const marker = drawn("path", { class: "marker", d: SHAPES[series.shape](4), transform: "translate(15 7)" });
  const line = drawn("path", { class: `line dash${series.dash}`, d: "M0 7H30" });
  const svg = drawn("svg", { class: "swatch", viewBox: "0 0 30 14", "aria-hidden": "true" });
  svg.append(drawn("g", { class: `${series.colour}${hollow}` }, line, marker));
  return svg;
}

// The contents follow the reader.

function follow(nav) {
  const links = [...nav.querySelectorAll("a")];
  const targets = links.map((link) => document.getElementById(link.hash.slice(1)));
  const update = () => {
    let current = 0;
    targets.forEach((target, place) => {
      if (target.getBoundingClientRect().top < 120) current = place;
    });
    links.forEach((link, place) => link.toggleAttribute("aria-current", place === current));
  };
  let waiting = false;
  document.addEventListener("scroll", () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      update();
    });
  });
  update();
}

document.documentElement.classList.add("script");
document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll("select[data-panels]").forEach(makeChooser);
const all = JSON.parse(document.getElementById("curves").textContent);
for (const figure of document.querySelectorAll("figure[data-curves]")) new Curves(figure, all[figure.dataset.curves]);
follow(document.querySelector("nav"));
