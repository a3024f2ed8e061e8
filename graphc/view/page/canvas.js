"use strict";
/* The canvas: draws a layout as SVG, and moves the view.
 *
 * Owns the SVG elements, the measuring of text, zoom and pan.  Knows layouts and what the page wants marked; decides
 * nothing.  Invariant: text enters the page as text alone (textContent).
 */

const SVG = "http://www.w3.org/2000/svg";
const LONGEST_LABEL = 30;
const MOST_DOTS = 6; // of the kernels in a closed box

/** Make an SVG element with attributes inside `parent`. */
function svg(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent?.append(element);
  return element;
}

/** Make an HTML element of a class, with text, inside `parent`. */
function html(name, className, text, parent) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  parent?.append(element);
  return element;
}

/** Shorten in the middle, where names differ least. */
function shortened(text, longest = LONGEST_LABEL) {
  if (text.length <= longest) return text;
  const half = (longest - 1) / 2;
  return `${text.slice(0, Math.ceil(half))}…${text.slice(text.length - Math.floor(half))}`;
}

/** The hue of kernel `number`: neighbours in number are far apart on the circle. */
function hueOf(number) {
  return Math.round((number * 137.508 + 210) % 360);
}

/** A smooth curve down (or up) through points, upright at its ends, that never swings beyond them: a monotone cubic
 *  (Steffen, 1990). */
function curve(points) {
  const slopes = points.map((p, i) => {
    if (i === 0 || i === points.length - 1) return 0;
    const [before, after] = [points[i - 1], points[i + 1]];
    const [h, k] = [p.y - before.y, after.y - p.y];
    if (!h || !k) return 0;
    const [s, t] = [(p.x - before.x) / h, (after.x - p.x) / k];
    if (s * t <= 0) return 0;
    const least = Math.min(Math.abs(s), Math.abs(t), Math.abs((s * k + t * h) / (h + k)) / 2);
    return 2 * Math.sign(s) * least;
  });
  let d = `M${points[0].x.toFixed(1)},${points[0].y.toFixed(1)}`;
  for (let i = 1; i < points.length; i++) {
    const [p, q] = [points[i - 1], points[i]];
    const third = (q.y - p.y) / 3;
    const steep = points.length === 2 ? 1.5 : 1; // a single piece turns more gently
    const numbers = [p.x + slopes[i - 1] * third, p.y + third * steep, q.x - slopes[i] * third, q.y - third * steep, q.x, q.y];
    const [a, b, c, e, x, y] = numbers.map((n) => n.toFixed(1));
    d += `C${a},${b} ${c},${e} ${x},${y}`;
  }
  return d;
}

class Canvas {
  constructor(element, scene) {
    this.element = element;
    this.scene = scene;
    this.world = svg("g", { class: "world" }, element);
    this.view = { x: 0, y: 0, scale: 1 };
    this.brush = document.createElement("canvas").getContext("2d");
    this.widths = new Map();
    this.cards = new Map(); // id -> element of each visible item
    this.lines = [];
    this.layout = null;
  }

  // -- measures ------------------------------------------------------------------------------------------------------

  width(text, font) {
    const key = `${font}|${text}`;
    let width = this.widths.get(key);
    if (width === undefined) {
      this.brush.font = font;
      this.widths.set(key, (width = this.brush.measureText(text).width));
    }
    return width;
  }

  /** The texts on the card of a closed item: title and, below it, what it is. */
  texts(item) {
    if (item.isGroup) {
      const ops = `${item.size} op${item.size === 1 ? "" : "s"}`;
      return { title: shortened(item.label), below: item.kind === "kernel" ? `kernel · ${ops}` : ops };
    }
    if (item.kind === "constant") {
      return { title: shortened(item.node.attrs?.value ?? item.label, 22), below: "" };
    }
    const plain = item.label.replace(/_\d+$/, "");
    return { title: shortened(item.label), below: plain === item.node.op ? "" : shortened(item.node.op) };
  }

  sizeOf(item) {
    const { title, below } = this.texts(item);
    if (item.kind === "constant") return { width: Math.max(26, Math.ceil(this.width(title, FONT.value)) + 18), height: 22 };
    const dots = item.isGroup && item.kind !== "kernel" ? 8 * Math.min(item.inner.length, MOST_DOTS) : 0;
    const text = Math.max(this.width(title, FONT.title), this.width(below, FONT.below) + dots);
    const more = item.isGroup ? 26 + Math.min(item.kernels.length, 1) * 8 : 0;
    return { width: Math.ceil(Math.max(64, text + 30 + more)), height: below ? 42 : 32 };
  }

  tapSize(item) {
    return { width: Math.ceil(this.width(shortened(item.label, 18), FONT.below)) + 20, height: 20 };
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  /** Draw a layout.  marks: id -> "new" or "changed"; counts: box id -> changed operations in it. */
  draw(layout, marks, counts) {
    this.layout = layout;
    this.cards = new Map();
    this.lines = [];
    const fresh = svg("g", { class: "world" });
    for (const level of layout.levels) this.#level(level, layout, fresh, marks, counts);
    const labels = svg("g", { class: "labels" }, fresh);
    for (const line of this.lines) this.#label(line, labels);
    this.world.replaceWith(fresh);
    this.world = fresh;
    this.#apply();
  }

  /** One open box: its frame, the edges in it, then the closed items; boxes in it come later, above it. */
  #level(level, layout, parent, marks, counts) {
    if (level.item.parent) this.#frame(level.item, layout.boxes.get(level.item), parent, marks);
    const edges = svg("g", { class: "edges" }, parent);
    for (const link of level.links.values()) this.#edge(link, edges);
    for (const tap of level.taps) this.#tap(tap, layout.boxes.get(tap), parent);
    for (const item of level.item.children) {
      if (!layout.levels.some((other) => other.item === item)) this.#card(item, layout.boxes.get(item), parent, marks, counts);
    }
  }

  #group(item, box, parent, marks, extra) {
    const classes = ["item", item.isGroup ? "box" : "op", `is-${item.kind}`, extra];
    if (marks.has(item.id)) classes.push(`mark-${marks.get(item.id)}`);
    const group = svg("g", { class: classes.join(" "), transform: `translate(${box.x},${box.y})`, tabindex: "-1" }, parent);
    group.setAttribute("role", "button");
    group.setAttribute("aria-label", this.#spoken(item, extra));
    if (item.isGroup) group.setAttribute("aria-expanded", String(extra === "open"));
    group.dataset.id = item.id;
    if (item.kernels.length) group.style.setProperty("--hue", hueOf(item.kernels[0]));
    if (item.kernels.length) group.classList.add("in-kernel");
    svg("title", {}, group).textContent = item.isGroup ? item.id.replace(/\/$/, "") : `${item.id} · ${item.node.op}`;
    this.cards.set(item.id, group);
    return group;
  }

  #spoken(item, extra) {
    if (!item.isGroup) return `${item.id}, ${item.node.op}`;
    return `${item.label}, ${item.kind} of ${item.size} operations, ${extra === "open" ? "expanded" : "collapsed"}`;
  }

  #frame(item, box, parent, marks) {
    const group = this.#group(item, box, parent, marks, "open");
    svg("rect", { class: "shape", width: box.width, height: box.height, rx: 12 }, group);
    const title = shortened(item.label, Math.max(8, Math.floor((box.width - 70) / 7)));
    svg("text", { class: "title", x: 16, y: 20 }, group).textContent = title;
    this.#button(group, box.width - 20, 16, "−");
  }

  #card(item, box, parent, marks, counts) {
    const group = this.#group(item, box, parent, marks, "closed");
    const { title, below } = this.texts(item);
    const { width, height } = box;
    if (item.isGroup) svg("rect", { class: "behind", x: 4, y: 4, width, height, rx: 10 }, group);
    const round = { constant: height / 2, input: height / 2, output: height / 2, update: height / 2, variable: 4 };
    svg("rect", { class: "shape", width, height, rx: round[item.kind] ?? 9 }, group);
    if (item.kind === "variable") svg("path", { class: "rim", d: `M3,${height - 4.5}H${width - 3}` }, group);
    const striped = item.kernels.length > 0 && item.kind !== "constant";
    if (striped) svg("rect", { class: "stripe", x: 5, y: 7, width: 4, height: height - 14, rx: 2 }, group);
    const middle = (width - (item.isGroup ? 20 : 0)) / 2 + (striped ? 3 : 0);
    const y = below ? height / 2 - 3.5 : height / 2 + 4;
    svg("text", { class: item.kind === "constant" ? "value" : "title", x: middle, y }, group).textContent = title;
    const dots = item.isGroup && item.kind !== "kernel" ? item.inner.slice(0, MOST_DOTS) : [];
    const x = middle - 4 * dots.length;
    if (below) svg("text", { class: "below", x, y: height / 2 + 12 }, group).textContent = below;
    const start = x + this.width(below, FONT.below) / 2 + 5;
    dots.forEach((kernel, i) => {
      const dot = svg("rect", { class: "stripe", x: start + 8 * i, y: height / 2 + 5.5, width: 6, height: 6, rx: 2 }, group);
      dot.style.setProperty("--hue", hueOf(kernel));
    });
    if (item.isGroup) this.#button(group, width - 15, height / 2, "+");
    const count = counts.get(item.id);
    if (count) {
      const text = String(count);
      const wide = 10 + 6 * text.length;
      const badge = svg("g", { class: "badge", transform: `translate(${width - wide / 2 - 2},-1)` }, group);
      svg("rect", { x: -wide / 2, y: -8, width: wide, height: 16, rx: 8 }, badge);
      svg("text", { y: 3.5 }, badge).textContent = text;
    }
  }

  #tap(tap, box, parent) {
    const group = svg("g", { class: "tap", transform: `translate(${box.x},${box.y})` }, parent);
    group.dataset.go = tap.source.id;
    svg("title", {}, group).textContent = `${tap.source.id.replace(/\/$/, "")}: click to go there`;
    svg("rect", { width: box.width, height: box.height, rx: box.height / 2 }, group);
    svg("text", { x: box.width / 2, y: box.height / 2 + 3.5 }, group).textContent = shortened(tap.source.label, 18);
  }

  #button(group, x, y, sign) {
    const button = svg("g", { class: "toggle", transform: `translate(${x},${y})` }, group);
    svg("circle", { r: 8 }, button);
    svg("path", { d: sign === "+" ? "M-4,0H4M0,-4V4" : "M-4,0H4" }, button);
  }

  #edge(link, parent) {
    const points = link.points;
    const control = link.bundles.every((bundle) => bundle.isControl);
    const group = svg("g", { class: control ? "edge control" : "edge" }, parent);
    svg("path", { class: "run", d: curve(points) }, group);
    if (link.b instanceof Item && !link.toPort) {
      const tip = points.at(-1);
      const h = link.flip ? 8 : -8;
      svg("path", { class: "tip", d: `M${tip.x},${tip.y}l-4.2,${h}h8.4z` }, group);
    }
    this.lines.push({ link, group });
  }

  /** The sizes on an edge, where the layout kept room for them. */
  #label({ link, group }, parent) {
    if (!link.label || !link.labelAt) return;
    const at = link.labelAt;
    const text = svg("text", { class: "sizes", x: at.x, y: at.y + 3.5 }, parent);
    text.textContent = link.label;
    group.label = text;
  }

  // -- marks ---------------------------------------------------------------------------------------------------------

  /** Mark what is selected with its edges, the search's hits, and the kernel that is shown. */
  mark({ selected, hits, hit, kernel }) {
    for (const [id, card] of this.cards) {
      card.classList.toggle("selected", id === selected);
      card.classList.toggle("hit", hits.has(id));
      card.classList.toggle("current", id === hit);
      card.setAttribute("tabindex", "-1");
    }
    this.element.classList.toggle("has-kernel", kernel !== null);
    for (const [id, card] of this.cards) {
      if (kernel !== null) card.classList.toggle("of-kernel", kernel.has(id));
    }
    const focus = this.cards.get(selected) ?? this.cards.values().next().value;
    focus?.setAttribute("tabindex", "0");
    this.element.classList.toggle("has-selected", this.cards.has(selected));
    for (const { link, group } of this.lines) {
      const from = link.bundles.some((bundle) => bundle.from.id === selected);
      const to = link.bundles.some((bundle) => bundle.to.id === selected);
      group.classList.toggle("leaves", from);
      group.classList.toggle("enters", to);
      group.label?.classList.toggle("near", from || to);
    }
  }

  // -- the view ------------------------------------------------------------------------------------------------------

  #apply() {
    const { x, y, scale } = this.view;
    this.world.setAttribute("transform", `translate(${x},${y}) scale(${scale})`);
  }

  move(dx, dy) {
    this.view.x += dx;
    this.view.y += dy;
    this.#apply();
  }

  /** Zoom around a point of the screen (the middle of the canvas where none is given). */
  zoom(factor, clientX, clientY) {
    const frame = this.element.getBoundingClientRect();
    const x = (clientX ?? frame.left + frame.width / 2) - frame.left;
    const y = (clientY ?? frame.top + frame.height / 2) - frame.top;
    const scale = Math.min(4, Math.max(0.03, this.view.scale * factor));
    const k = scale / this.view.scale;
    this.view = { x: x - (x - this.view.x) * k, y: y - (y - this.view.y) * k, scale };
    this.#apply();
  }

  /** Show the whole drawing, no larger than natural; readable: rather its upper part than all of it too small. */
  fit(readable = false) {
    if (!this.layout) return;
    const frame = this.element.getBoundingClientRect();
    const { width, height } = this.layout;
    const space = { left: 28, top: 62, bottom: this.below ?? 28 };
    const wide = (frame.width - 2 * space.left) / Math.max(width, 1);
    const high = (frame.height - space.top - space.bottom) / Math.max(height, 1);
    const scale = Math.max(Math.min(wide, high, 1.15), readable ? Math.max(0.5, Math.min(wide, 0.8)) : 0.03);
    const left = (frame.width - width * scale) / 2;
    const top = (frame.height - space.bottom + space.top - height * scale) / 2;
    this.view = { x: left, y: Math.max(top, space.top), scale };
    this.#apply();
  }

  /** Where an item stands on the screen, as a point of the canvas. */
  screen(item) {
    const box = this.layout?.boxes.get(item);
    if (!box) return null;
    const { x, y, scale } = this.view;
    return { x: box.x * scale + x, y: box.y * scale + y, width: box.width * scale, height: box.height * scale };
  }

  /** Move the view so that an item is in the middle, or, with `only`, if it is out of sight. */
  center(item, only = false) {
    const at = this.screen(item);
    if (!at) return;
    const frame = this.element.getBoundingClientRect();
    const inside = at.x >= 8 && at.y >= 8 && at.x + at.width <= frame.width - 8 && at.y + at.height <= frame.height - 70;
    if (only && inside) return;
    this.move(frame.width / 2 - at.x - at.width / 2, frame.height / 2 - at.y - Math.min(at.height, frame.height) / 2);
  }
}

const FAMILY = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif';
const MONO = 'ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace';
const FONT = { title: `600 12.5px ${FAMILY}`, below: `11px ${FAMILY}`, value: `11px ${MONO}`, sizes: `10px ${MONO}` };
