"use strict";
/* The model: the scene as the page uses it.
 *
 * Owns the tree of boxes and operations of each stage, what of it can be seen when some boxes are open, and the
 * differences between stages.  Knows nothing of sizes on the screen.  Invariant: only `shown` of an item ever changes.
 */

/** An operation (node: its record) or a box of one stage. */
class Item {
  constructor(id, label, kind, node, kernels) {
    this.id = id;
    this.label = label;
    this.kind = kind;
    this.node = node;
    this.kernels = kernels;
    this.parent = null;
    this.children = [];
    this.placed = false;
    this.size = node ? 1 : 0;
    this.depth = 0;
    this.shown = this; // the item that stands for this one in the drawing
    this.inputs = [];
    this.users = [];
  }

  get isGroup() {
    return this.node === null;
  }

  /** The kernels of what is in this box, by number. */
  get inner() {
    return (this.#inner ??= [...new Set(this.children.flatMap((i) => (i.isGroup ? i.inner : i.kernels)))].sort((a, b) => a - b));
  }

  #inner = null;

  /** The boxes around this item, innermost first, the whole drawing last. */
  *around() {
    for (let item = this.parent; item; item = item.parent) yield item;
  }
}

/** A value that passes from one operation to another; output -1 is an order without a value. */
class Edge {
  constructor(from, to, output) {
    this.from = from;
    this.to = to;
    this.output = output;
  }
}

/** The edges between two visible items, as one. */
class Bundle {
  constructor(from, to) {
    this.from = from;
    this.to = to;
    this.edges = [];
  }

  get isControl() {
    return this.edges.every((edge) => edge.output < 0);
  }
}

/** The graph at one time: as written, as extracted, or after a pass. */
class Stage {
  constructor(scene, number) {
    const told = scene.data.stages[number];
    this.scene = scene;
    this.number = number;
    this.name = told.name;
    this.root = new Item("", scene.data.title, "root", null, []);
    this.groups = told.groups.map((g) => new Item(g.id, g.label, g.kind, null, g.kernels));
    told.groups.forEach((g, i) => this.#settle(this.groups[i], g.in));
    this.nodes = told.nodes.map((n, i) => {
      const record = scene.data.nodes[n];
      return new Item(record.id, told.labels[i], record.kind, record, record.kernels ?? []);
    });
    this.records = told.nodes;
    this.byId = new Map(this.groups.map((g) => [g.id, g]));
    told.in.forEach((group, i) => {
      const item = this.nodes[i];
      this.#settle(item, group);
      this.byId.set(item.id, item);
      this.#place(item);
    });
    this.edges = this.#edges();
  }

  #settle(item, group) {
    item.parent = group < 0 ? this.root : this.groups[group];
    item.depth = item.parent.depth + 1;
  }

  /** Append to the children of each box around it, so that boxes stand where their first operation does. */
  #place(item) {
    for (const box of item.around()) box.size += 1;
    for (let inner = item; inner.parent && !inner.placed; inner = inner.parent) {
      inner.placed = true;
      inner.parent.children.push(inner);
    }
  }

  #edges() {
    const edges = [];
    for (const item of this.nodes) {
      const link = (id, output) => {
        const source = this.byId.get(id);
        if (!source) return;
        const edge = new Edge(source, item, output);
        edges.push(edge);
        item.inputs.push(edge);
        source.users.push(edge);
      };
      for (const [id, output] of item.node.in ?? []) link(id, output);
      for (const id of item.node.after ?? []) link(id, -1);
    }
    return edges;
  }

  /** Let every item know what stands for it where the boxes with the ids `open` are open; return the visible items. */
  show(open) {
    const visible = [];
    const stack = [...this.root.children].reverse();
    while (stack.length) {
      const item = stack.pop();
      item.shown = item;
      visible.push(item);
      if (!item.isGroup) continue;
      if (open.has(item.id)) {
        for (let i = item.children.length - 1; i >= 0; i--) stack.push(item.children[i]);
        continue;
      }
      const inside = [...item.children];
      while (inside.length) {
        const hidden = inside.pop();
        hidden.shown = item;
        for (const child of hidden.children) inside.push(child);
      }
    }
    return visible;
  }

  /** The edges between visible items, bundled; of control edges, all or none. */
  bundles(withControl) {
    const found = new Map();
    for (const edge of this.edges) {
      if (edge.output < 0 && !withControl) continue;
      const from = edge.from.shown;
      const to = edge.to.shown;
      if (from === to) continue;
      let inner = found.get(from);
      if (!inner) found.set(from, (inner = new Map()));
      let bundle = inner.get(to);
      if (!bundle) inner.set(to, (bundle = new Bundle(from, to)));
      bundle.edges.push(edge);
    }
    return [...found.values()].flatMap((inner) => [...inner.values()]);
  }

  /** What changed since the stage before: id -> "new" or "changed", per box the number of such operations, and the
   *  names of what is gone. */
  get changes() {
    return (this.#changes ??= this.#compare());
  }

  #changes = null;

  #compare() {
    const marks = new Map();
    const inside = new Map();
    const before = this.number > 0 ? this.scene.stage(this.number - 1) : null;
    if (!before) return { marks, inside, added: 0, changed: 0, gone: [] };
    const known = new Map(before.nodes.map((item, i) => [item.id, before.records[i]]));
    let added = 0;
    this.nodes.forEach((item, i) => {
      const old = known.get(item.id);
      if (old === this.records[i]) return;
      marks.set(item.id, old === undefined ? "new" : "changed");
      if (old === undefined) added += 1;
      for (const box of item.around()) inside.set(box.id, (inside.get(box.id) ?? 0) + 1);
    });
    const changed = marks.size - added;
    for (const group of this.groups) {
      if (group.kind === "kernel" && !before.byId.has(group.id)) marks.set(group.id, "new");
    }
    const gone = before.nodes.filter((item) => !this.byId.has(item.id)).map((item) => item.id);
    return { marks, inside, added, changed, gone };
  }
}

class Scene {
  constructor(data) {
    this.data = data;
    this.stages = data.stages.map(() => null);
  }

  stage(number) {
    return (this.stages[number] ??= new Stage(this, number));
  }

  /** `float32 [?, 784]` */
  typeText(number) {
    const { dtype, shape } = this.data.types[number];
    return shape === null ? `${dtype} of any rank` : shape.length ? `${dtype} [${shape.join(", ")}]` : dtype;
  }

  /** The sizes alone, as an edge shows them: `?×784`, `[512]`, or the dtype of a scalar. */
  typeShort(number) {
    const { dtype, shape } = this.data.types[number];
    if (shape === null) return "any rank";
    return shape.length === 1 ? `[${shape[0]}]` : shape.join("×") || dtype;
  }

  line(number) {
    return number >= 0 ? this.data.lines[number] : "";
  }
}
