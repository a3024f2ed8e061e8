"use strict";
/* The layout: where every visible box and operation stands, and how the edges run.
 *
 * Each open box is laid out by itself and is then one thing inside the box around it: in layers and in an order of few
 * crossings by dagre (after Gansner et al., "A technique for drawing directed graphs", 1993), then drawn straight within
 * each layer's order (`straightened`).  An edge that
 * crosses the border of a box passes a port on it: one per source, so that a value used in several places enters once.
 * So opening a box lays out that box and those around it, never the whole graph.
 * Owns positions.  Knows items and their measured sizes; draws nothing.
 */

const SPACE = { node: 20, rank: 34, edge: 12, pad: 16, head: 30, grid: 14, part: 36 };

/** Where edges of one source cross the border of an open box; top: at its upper border. */
class Port {
  constructor(top) {
    this.top = top;
    this.x = 0;
  }
}

/** A source told again beside what uses it, in the place of a long edge; its fan of edges would bury the drawing. */
class Tap {
  constructor(source, number) {
    this.source = source;
    this.id = `tap ${number}`;
  }
}

const FAN = 6; // edges of one source in one box that are still drawn; of more, the first alone

/** A piece of an edge inside one open box, from `a` to `b`, each an item or a port of the box; fromPort, toPort: the
 *  ports of `a` and `b` where these are open boxes.  flip: it runs upwards. */
class Link {
  constructor(a, b, flip, label) {
    Object.assign(this, { a, b, flip, label, fromPort: null, toPort: null, bundles: [], points: [], labelAt: null });
  }
}

/** An open box, or the whole: its children, the links in it, its ports. */
class Level {
  constructor(item) {
    this.item = item;
    this.links = new Map();
    this.ports = new Map();
    this.taps = [];
    this.places = new Map();
    this.width = 0;
    this.height = 0;
  }

  port(source, top) {
    const key = `${source.id}|${top}`;
    let port = this.ports.get(key);
    if (!port) this.ports.set(key, (port = new Port(top)));
    return port;
  }

  link(key, a, b, flip, label) {
    let link = this.links.get(key);
    if (!link) this.links.set(key, (link = new Link(a, b, flip, label)));
    return link;
  }
}

class Layout {
  /** sizeOf(item), tapSize(item): {width, height} of a closed item, and of its tap.  labelOf(bundle): text of an edge.
   *  widthOf(label): its pixels. */
  constructor(sizeOf, tapSize, labelOf, widthOf) {
    this.sizeOf = sizeOf;
    this.tapSize = tapSize;
    this.labelOf = labelOf;
    this.widthOf = widthOf;
    this.known = new Map();
  }

  /** Return {boxes: item -> {x, y, width, height}, levels, width, height}; positions are those of upper left corners. */
  run(stage, open, bundles) {
    this.levels = new Map([[stage.root, new Level(stage.root)]]);
    this.#findLevels(stage.root, open);
    this.#connect(bundles);
    for (const level of this.levels.values()) this.#tap(level);
    const inner = [...this.levels.values()].sort((a, b) => b.item.depth - a.item.depth);
    for (const level of inner) this.#arrange(level);
    const boxes = new Map();
    const root = this.levels.get(stage.root);
    boxes.set(stage.root, { x: 0, y: 0, width: root.width, height: root.height });
    for (const level of inner.reverse()) this.#place(level, boxes);
    for (const level of inner) this.#route(level, boxes);
    return { boxes, levels: inner, width: root.width, height: root.height };
  }

  #findLevels(root, open) {
    const stack = [root];
    while (stack.length) {
      for (const child of stack.pop().children) {
        if (!child.isGroup || !open.has(child.id)) continue;
        this.levels.set(child, new Level(child));
        stack.push(child);
      }
    }
  }

  /** Cut every bundle into links, one per open box that it runs through. */
  #connect(bundles) {
    const cut = bundles.map((bundle) => {
      const up = [bundle.from, ...bundle.from.around()];
      const down = [bundle.to, ...bundle.to.around()];
      while (up.length > 1 && down.length > 1 && up.at(-2) === down.at(-2)) {
        up.pop();
        down.pop();
      }
      return { bundle, up, down };
    });
    const backward = this.#backward(cut);
    for (const { bundle, up, down } of cut) {
      const source = bundle.from;
      const outer = this.levels.get(up.at(-1));
      const a = up.at(-2);
      const b = down.at(-2);
      const back = backward.get(a)?.has(b) ?? false;
      const label = this.labelOf(bundle);
      const main = outer.link(`${a.id}>${b.id}>${source.id}`, a, b, back, label);
      if (main.label !== label) main.label = "";
      main.bundles.push(bundle);
      let before = main;
      for (let i = up.length - 2; i > 0; i--) { // from the box that holds the source inwards
        const level = this.levels.get(up[i]);
        const port = level.port(source, back);
        before.fromPort = port;
        before = level.link(`${up[i - 1].id}>port ${source.id}|${back}`, up[i - 1], port, back, "");
        before.bundles.push(bundle);
      }
      before = main;
      for (let i = down.length - 2; i > 0; i--) {
        const level = this.levels.get(down[i]);
        const port = level.port(source, !back);
        before.toPort = port;
        before = level.link(`port ${source.id}|${back}>${down[i - 1].id}`, port, down[i - 1], back, "");
        before.bundles.push(bundle);
      }
    }
  }

  /** Put taps in the place of wide fans: each target but the first gets a tap of its own. */
  #tap(level) {
    const fans = new Map();
    for (const link of level.links.values()) {
      if (link.flip || !(link.b instanceof Item)) continue;
      const origins = new Set(link.bundles.flatMap((bundle) => bundle.edges.map((edge) => edge.from)));
      const source = origins.size === 1 ? [...origins][0] : link.bundles[0].from; // the operation itself where it can be
      const fan = fans.get(source);
      if (fan) fan.push(link);
      else fans.set(source, [link]);
    }
    const place = new Map(level.item.children.map((item, i) => [item, i]));
    for (const [source, links] of fans) {
      if (links.length < FAN) continue;
      links.sort((p, q) => place.get(p.b) - place.get(q.b));
      for (const link of links.slice(1)) {
        link.a = new Tap(source, `${level.item.id} ${level.taps.length}`);
        link.fromPort = null;
        link.label = "";
        level.taps.push(link.a);
      }
    }
  }

  /** Which links run against the order of the others: item -> items, found by walking along the links. */
  #backward(cut) {
    const next = new Map();
    for (const { up, down } of cut) {
      const a = up.at(-2);
      if (!next.has(a)) next.set(a, new Set());
      next.get(a).add(down.at(-2));
    }
    const backward = new Map();
    const state = new Map(); // 1: on the way, 2: done
    for (const level of this.levels.values()) {
      for (const start of level.item.children) {
        if (state.has(start)) continue;
        const stack = [[start, [...(next.get(start) ?? [])]]];
        state.set(start, 1);
        while (stack.length) {
          const [item, rest] = stack.at(-1);
          const other = rest.shift();
          if (other === undefined) {
            state.set(item, 2);
            stack.pop();
          } else if (state.get(other) === 1) {
            if (!backward.has(item)) backward.set(item, new Set());
            backward.get(item).add(other);
          } else if (!state.has(other)) {
            state.set(other, 1);
            stack.push([other, [...(next.get(other) ?? [])]]);
          }
        }
      }
    }
    return backward;
  }

  #size(item) {
    if (item instanceof Tap) return this.tapSize(item.source);
    const level = this.levels.get(item);
    return level ? { width: level.width, height: level.height } : this.sizeOf(item);
  }

  // -- one box -------------------------------------------------------------------------------------------------------

  #arrange(level) {
    const items = level.item.children;
    const ends = [...items, ...level.ports.values(), ...level.taps];
    const number = new Map(ends.map((end, i) => [end, i]));
    const links = [...level.links.values()];
    const parts = this.#parts(ends, links, number, level.ports.size > 0);
    const placed = parts.map((part) => this.#part(part));
    const content = packed(placed, level.ports.size > 0);
    const head = level.item.parent ? SPACE.head : 0;
    const pad = level.item.parent ? SPACE.pad : 0;
    const title = level.item.parent ? Math.min(this.widthOf(level.item.label) * 1.3 + 90, 420) : 0;
    const spare = Math.max(0, (title - content.width - 2 * pad) / 2);
    placed.forEach((part, i) => {
      const { x, y } = content.places[i];
      const left = pad + spare + x;
      const top = pad + head + y;
      for (const [end, at] of part.at) {
        if (end instanceof Port) end.x = left + at.x;
        else level.places.set(end, { x: left + at.x, y: top + at.y });
      }
      const moved = (p) => ({ x: p.x + left, y: p.y + top });
      for (const [link, { run, label }] of part.points) {
        link.points = run.map(moved);
        link.labelAt = label && moved(label);
      }
    });
    level.width = content.width + 2 * (pad + spare);
    level.height = content.height + 2 * pad + head;
  }

  /** Groups of what is connected; what stands alone is a group together. */
  #parts(ends, links, number, together) {
    const root = ends.map((_, i) => i);
    const find = (i) => {
      while (root[i] !== i) i = root[i] = root[root[i]];
      return i;
    };
    const linked = new Set();
    for (const { a, b } of links) {
      linked.add(number.get(a)).add(number.get(b));
      root[find(number.get(a))] = find(number.get(b));
    }
    const parts = new Map();
    const alone = { ends: [], links: [] };
    ends.forEach((end, i) => {
      if (!linked.has(i)) return alone.ends.push(end);
      const key = together ? 0 : find(i);
      if (!parts.has(key)) parts.set(key, { ends: [], links: [] });
      parts.get(key).ends.push(end);
    });
    for (const link of links) parts.get(together ? 0 : find(number.get(link.a))).links.push(link);
    return alone.ends.length ? [...parts.values(), alone] : [...parts.values()];
  }

  /** Where the ends of one part stand (upper left corners) and the points of its links. */
  #part(part) {
    if (!part.links.length) return grid(part.ends, (item) => this.#size(item));
    const sizes = part.ends.map((end) => (end instanceof Port ? { width: 4, height: 0, port: end.top ? "top" : "bottom" }
      : this.#size(end)));
    const local = new Map(part.ends.map((end, i) => [end, i]));
    const edges = part.links.map(({ a, b, flip, label }) => {
      const [from, to] = flip ? [b, a] : [a, b];
      return [local.get(from), local.get(to), label ? Math.ceil(this.widthOf(label)) + 10 : 0];
    });
    const key = JSON.stringify([sizes, edges]);
    let solved = this.known.get(key);
    if (!solved) {
      if (this.known.size > 400) this.known.clear();
      this.known.set(key, (solved = layered(sizes, edges)));
    }
    const at = new Map(part.ends.map((end, i) => [end, solved.at[i]]));
    const points = new Map(part.links.map((link, i) => {
      const run = solved.points[i];
      return [link, { run: link.flip ? [...run].reverse() : run, label: solved.labels[i] }];
    }));
    return { at, points, width: solved.width, height: solved.height };
  }

  // -- the whole -----------------------------------------------------------------------------------------------------

  #place(level, boxes) {
    const own = boxes.get(level.item);
    for (const [item, at] of level.places) boxes.set(item, { x: own.x + at.x, y: own.y + at.y, ...this.#size(item) });
  }

  /** Give links their absolute points: they leave and enter operations side by side, boxes at their ports. */
  #route(level, boxes) {
    const own = boxes.get(level.item);
    const ends = new Map();
    const meet = (item, top, link, index) => {
      const key = `${top}|${item.id}`;
      if (!ends.has(key)) ends.set(key, { item, top, uses: [] });
      ends.get(key).uses.push({ link, index });
    };
    for (const link of level.links.values()) {
      const moved = (p) => ({ x: own.x + p.x, y: own.y + p.y });
      link.points = link.points.map(moved);
      link.labelAt &&= moved(link.labelAt);
      const end = (item, port, top, index) => {
        const point = link.points.at(index);
        if (item instanceof Port) {
          point.x = own.x + item.x;
          point.y = item.top ? own.y : own.y + own.height;
        } else if (port) {
          const box = boxes.get(item);
          point.x = box.x + port.x;
          point.y = port.top ? box.y : box.y + box.height;
        } else {
          meet(item, top, link, index);
        }
      };
      end(link.a, link.fromPort, link.flip, 0);
      end(link.b, link.toPort, !link.flip, -1);
    }
    for (const { item, top, uses } of ends.values()) {
      const box = boxes.get(item);
      const next = ({ link, index }) => link.points.at(index === 0 ? 1 : -2).x;
      uses.sort((p, q) => next(p) - next(q));
      const step = Math.min(14, (box.width - 16) / uses.length);
      uses.forEach(({ link, index }, i) => {
        const point = link.points.at(index);
        point.x = box.x + box.width / 2 + (i - (uses.length - 1) / 2) * step;
        point.y = top ? box.y : box.y + box.height;
      });
    }
  }
}

/** Lay out things of these sizes in layers.  edges: [from, to, width of the label]. */
function layered(sizes, edges) {
  const graph = new dagre.graphlib.Graph({ multigraph: true });
  graph.setGraph({ rankdir: "TB", nodesep: SPACE.node, ranksep: SPACE.rank, edgesep: SPACE.edge, ranker: byLongestPath });
  sizes.forEach((size, i) => graph.setNode(String(i), { ...size }));
  edges.forEach(([from, to, width], i) => {
    graph.setEdge(String(from), String(to), { width, height: width ? 14 : 0, labelpos: "c" }, String(i));
  });
  dagre.layout(graph);
  const at = sizes.map((size, i) => {
    const { x, y } = graph.node(String(i));
    return size.port ? { x, y } : { x: x - size.width / 2, y: y - size.height / 2 };
  });
  const runs = edges.map(([from, to], i) => graph.edge(String(from), String(to), String(i)).points);
  const { width, points, labels } = straightened(sizes, edges, at, runs);
  return { at, points, labels, width, height: graph.graph().height };
}

const SWEEPS = 40;
const TALL = 60;
const PULL = { near: 4, run: 12, port: 1 }; // of edges between neighbouring layers, within long edges, and at ports

/** Move things and the bends of edges sideways, within the order of their layer, to where their neighbours pull them;
 *  change `at`; return the width, and the points and the label's place of each edge.  Each layer is solved exactly: the
 *  least squares of places in a given order are those of an isotonic regression (by pooling adjacent violators: Barlow
 *  et al., 1972). */
function straightened(sizes, edges, at, runs) {
  const spots = sizes.map((size, i) => ({ x: size.port ? at[i].x : at[i].x + size.width / 2, half: size.width / 2,
    y: size.port ? at[i].y : at[i].y + size.height / 2, height: size.height, gap: SPACE.node, pulls: [] }));
  const pull = (a, b, weight) => {
    a.pulls.push([b, weight]);
    b.pulls.push([a, weight]);
  };
  const bends = runs.map((run, i) => run.slice(1, -1).map((p, k) => {
    const labelled = edges[i][2] && k === Math.floor((run.length - 2) / 2);
    return { x: p.x, y: p.y, height: 0, half: labelled ? edges[i][2] / 2 : 1, gap: SPACE.edge, pulls: [] };
  }));
  edges.forEach(([from, to], i) => {
    const run = bends[i];
    const ends = [spots[from], spots[to]].sort((a, b) => a.y - b.y);
    const down = run.length > 1 && run[0].y > run.at(-1).y ? [...run].reverse() : run;
    const chain = [ends[0], ...down, ends[1]];
    const long = run.length > 1;
    for (let k = 1; k < chain.length; k++) {
      const inner = k > 1 && k < chain.length - 1;
      const port = sizes[from].port || sizes[to].port;
      pull(chain[k - 1], chain[k], inner ? PULL.run : long || port ? PULL.port : PULL.near);
    }
  });
  const layers = new Map();
  for (const spot of [...spots, ...bends.flat()]) {
    const key = Math.round(spot.y);
    if (!layers.has(key)) layers.set(key, []);
    layers.get(key).push(spot);
  }
  const rows = [...layers.keys()].sort((a, b) => a - b).map((key) => layers.get(key).sort((a, b) => a.x - b.x));
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    for (const row of sweep % 2 ? [...rows].reverse() : rows) settle(row);
  }
  const all = rows.flat();
  const left = Math.min(...all.map((s) => s.x - s.half));
  spots.forEach((spot, i) => {
    at[i].x = spot.x - left - (sizes[i].port ? 0 : spot.half);
  });
  for (const row of rows) {
    const height = Math.max(...row.map((s) => s.height));
    for (const spot of row) spot.room = height;
  }
  const points = runs.map((run, i) => [run[0], ...bends[i].flatMap((bend) => passing(bend, left, run[0].y > run.at(-1).y)),
    run.at(-1)]);
  const labels = bends.map((run) => {
    const middle = run[Math.floor(run.length / 2)];
    return middle && { x: middle.x - left, y: middle.y };
  });
  return { width: Math.max(...all.map((s) => s.x + s.half)) - left, points, labels };
}

/** The points of a bend: beside something tall, an edge runs upright along all of it. */
function passing(bend, left, upwards) {
  const x = bend.x - left;
  if (bend.room < TALL) return [{ x, y: bend.y }];
  const points = [{ x, y: bend.y - bend.room / 2 }, { x, y: bend.y + bend.room / 2 }];
  return upwards ? points.reverse() : points;
}

/** Move the spots of one layer, in their order, as near as can be to where they are pulled. */
function settle(row) {
  const pools = []; // neighbours that move as one: the sums of weight and of wish, and how many
  let offset = 0;
  row.forEach((spot, i) => {
    if (i > 0) offset += row[i - 1].half + spot.half + Math.max(row[i - 1].gap, spot.gap) * (row[i - 1].gap === spot.gap ? 1 : 0.8);
    spot.offset = offset;
    let [weight, wish] = [0.02, 0.02 * spot.x];
    for (const [other, w] of spot.pulls) [weight, wish] = [weight + w, wish + w * other.x];
    pools.push({ weight, wish: wish - weight * offset, count: 1 });
    while (pools.length > 1 && pools.at(-2).wish / pools.at(-2).weight > pools.at(-1).wish / pools.at(-1).weight) {
      const last = pools.pop();
      const before = pools.at(-1);
      before.weight += last.weight;
      before.wish += last.wish;
      before.count += last.count;
    }
  });
  let i = 0;
  for (const { weight, wish, count } of pools) {
    for (let k = 0; k < count; k++, i++) row[i].x = wish / weight + row[i].offset;
  }
}

/** Give each node of dagre's graph its layer: by the longest path, then as near to its users as its inputs allow; ports
 *  of the upper border stand before all, those of the lower border after all. */
function byLongestPath(graph) {
  const skip = graph.graph().nestingRoot;
  const names = graph.nodes().filter((v) => v !== skip);
  const waiting = new Map(names.map((v) => [v, graph.inEdges(v).filter((e) => e.v !== skip).length]));
  const order = names.filter((v) => waiting.get(v) === 0);
  for (let i = 0; i < order.length; i++) {
    for (const { w } of graph.outEdges(order[i])) {
      waiting.set(w, waiting.get(w) - 1);
      if (waiting.get(w) === 0) order.push(w);
    }
  }
  const length = (e) => graph.edge(e).minlen;
  const node = (v) => graph.node(v);
  const start = names.some((v) => node(v).port === "top") ? 2 : 0;
  for (const v of order) {
    node(v).rank = node(v).port === "top" ? 0 : start;
    for (const e of graph.inEdges(v)) {
      if (e.v !== skip) node(v).rank = Math.max(node(v).rank, node(e.v).rank + length(e));
    }
  }
  for (const v of [...order].reverse()) {
    const outs = graph.outEdges(v);
    const ins = graph.inEdges(v).filter((e) => e.v !== skip);
    if (node(v).port || !outs.length || outs.length < ins.length) continue;
    node(v).rank = Math.max(node(v).rank, Math.min(...outs.map((e) => node(e.w).rank - length(e))));
  }
  const last = Math.max(...order.map((v) => node(v).rank));
  for (const v of order) if (node(v).port === "bottom") node(v).rank = Math.max(last, start);
  if (skip !== undefined) node(skip).rank = -1;
}

/** Things without edges, in rows. */
function grid(items, sizeOf) {
  const sizes = items.map(sizeOf);
  const area = sizes.reduce((sum, s) => sum + (s.width + SPACE.grid) * (s.height + SPACE.grid), 0);
  const limit = Math.max(Math.sqrt(area) * 1.6, ...sizes.map((s) => s.width));
  const at = new Map();
  let [x, y, row, width] = [0, 0, 0, 0];
  items.forEach((item, i) => {
    if (x > 0 && x + sizes[i].width > limit) [x, y, row] = [0, y + row + SPACE.grid, 0];
    at.set(item, { x, y });
    row = Math.max(row, sizes[i].height);
    width = Math.max(width, x + sizes[i].width);
    x += sizes[i].width + SPACE.grid;
  });
  return { at, points: new Map(), width, height: y + row };
}

/** Put parts beside each other, and (unless `oneRow`) in rows. */
function packed(parts, oneRow) {
  const order = parts.map((_, i) => i);
  if (!oneRow) order.sort((i, j) => parts[j].width * parts[j].height - parts[i].width * parts[i].height || i - j);
  const area = parts.reduce((sum, p) => sum + (p.width + SPACE.part) * (p.height + SPACE.part), 0);
  const limit = oneRow ? Infinity : Math.max(Math.sqrt(area) * 1.15, ...parts.map((p) => p.width));
  const places = parts.map(() => ({ x: 0, y: 0 }));
  let [x, y, row, width] = [0, 0, 0, 0];
  for (const i of order) {
    if (x > 0 && x + parts[i].width > limit) [x, y, row] = [0, y + row + SPACE.part, 0];
    places[i] = { x, y };
    row = Math.max(row, parts[i].height);
    width = Math.max(width, x + parts[i].width);
    x += parts[i].width + SPACE.part;
  }
  const height = y + row;
  if (oneRow) for (const i of order) places[i].y = parts[i].points.size ? 0 : (height - parts[i].height) / 2;
  return { places, width, height };
}
