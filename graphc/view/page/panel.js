"use strict";
/* The panel: what is told of the operation, box or kernel that is chosen, and of the whole.
 *
 * Owns the elements beside the drawing.  Knows the model; tells the page by its callbacks where to go.  Invariant: text
 * enters the page as text alone (textContent).
 */

const MOST = 60; // rows of a list before "and N more"

class Panel {
  /** go(id): show an item.  kernel(number): show a kernel.  toggle(id): open or close a box. */
  constructor(element, scene, { go, kernel, toggle }) {
    Object.assign(this, { element, scene, go, kernel, toggle });
  }

  #start(kind, title) {
    this.element.replaceChildren();
    this.element.scrollTop = 0;
    const head = html("div", "head", null, this.element);
    html("div", "kind", kind, head);
    html("h2", "", title, head);
    return head;
  }

  #section(title, note) {
    const section = html("section", "", null, this.element);
    const head = html("h3", "", title, section);
    if (note !== undefined) html("span", "note", note, head);
    return section;
  }

  #rows(section, rows) {
    const table = html("dl", "", null, section);
    for (const [name, text] of rows) {
      html("dt", "", name, table);
      html("dd", "", text, table);
    }
  }

  #links(section, ids, textOf = () => "") {
    const list = html("ul", "links", null, section);
    for (const id of ids.slice(0, MOST)) {
      const button = html("button", "link", null, html("li", "", null, list));
      html("span", "path", id, button);
      const text = textOf(id);
      if (text) html("span", "note", text, button);
      button.addEventListener("click", () => this.go(id));
    }
    if (ids.length > MOST) html("li", "note", `and ${ids.length - MOST} more`, list);
  }

  #kernelChips(section, numbers) {
    const list = html("div", "chips", null, section);
    for (const number of numbers.slice(0, MOST)) {
      const kernel = this.scene.data.kernels[number];
      const chip = html("button", "chip", null, list);
      chip.style.setProperty("--hue", hueOf(number));
      html("span", "dot", null, chip);
      html("span", "path", kernel.name, chip);
      html("span", "note", `${kernel.ops.length}`, chip);
      chip.title = `${kernel.name}: computes ${kernel.ops.length} of the graph's operations`;
      chip.addEventListener("click", () => this.kernel(number));
    }
    if (numbers.length > MOST) html("div", "note", `and ${numbers.length - MOST} more`, list);
  }

  #line(text) {
    if (!text) return;
    const [place, ...code] = text.split(":   ");
    const section = this.#section("Written at", place);
    if (code.length) html("pre", "code", null, section).append(...painted(code.join(":   ")));
  }

  // -- what can be shown ---------------------------------------------------------------------------------------------

  overview(stage) {
    const { data } = this.scene;
    this.#start(data.stages.length > 1 ? "compilation" : "drawing", data.title);
    this.#rows(this.#section("Here"), [
      ["stage", stage.name],
      ["operations", stage.nodes.length.toLocaleString("en")],
      ["boxes", stage.groups.length.toLocaleString("en")],
      ...(data.kernels.length ? [["kernels", String(data.kernels.length)]] : []),
    ]);
    this.#changes(stage);
    if (data.kernels.length) {
      const section = this.#section("Kernels", "operations of the graph in each");
      this.#kernelChips(section, data.kernels.map((_, i) => i));
    }
    this.#counts(stage.nodes);
  }

  #changes(stage) {
    const { marks, added, changed, gone } = stage.changes;
    if (!added && !changed && !gone.length) return;
    const list = (title, kind) => {
      const ids = [...marks].filter(([id, mark]) => mark === kind && !stage.byId.get(id).isGroup).map(([id]) => id);
      if (!ids.length) return;
      const section = this.#section(title, String(ids.length));
      section.classList.add(`about-${kind}`);
      this.#links(section, ids, (id) => stage.byId.get(id).node.op);
    };
    list("New in this pass", "new");
    list("Changed by this pass", "changed");
    if (gone.length) {
      const section = this.#section("Gone", String(gone.length));
      section.classList.add("about-gone");
      const names = html("ul", "links", null, section);
      for (const id of gone.slice(0, MOST)) html("li", "path", id, names);
      if (gone.length > MOST) html("li", "note", `and ${gone.length - MOST} more`, names);
    }
  }

  #counts(items) {
    const counts = new Map();
    for (const item of items) counts.set(item.node.op, (counts.get(item.node.op) ?? 0) + 1);
    const sorted = [...counts].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
    const section = this.#section("Operations by type");
    const list = html("div", "bars", null, section);
    for (const [op, count] of sorted.slice(0, 14)) {
      html("span", "path", op, list);
      const bar = html("span", "bar-line", null, list);
      html("span", "fill", null, bar).style.width = `${(100 * count) / sorted[0][1]}%`;
      html("span", "note", String(count), list);
    }
  }

  group(item, isOpen) {
    const kinds = { scope: "name scope", kernel: "kernel", body: "body", block: "part of a long box" };
    const head = this.#start(kinds[item.kind], item.kind === "block" ? item.label : item.id.replace(/\/$/, ""));
    const button = html("button", "action", isOpen ? "Collapse" : "Expand", head);
    button.addEventListener("click", () => this.toggle(item.id));
    const inside = [];
    const stack = [item];
    while (stack.length) {
      const next = stack.pop();
      if (next.isGroup) stack.push(...next.children);
      else inside.push(next);
    }
    const kernels = [...new Set([...item.kernels, ...inside.flatMap((i) => i.kernels)])].sort((a, b) => a - b);
    this.#rows(this.#section("Here"), [["operations", item.size.toLocaleString("en")],
      ["directly in it", String(item.children.length)]]);
    if (item.kind === "kernel" && item.kernels.length) this.#sources(item.kernels[0]);
    else if (kernels.length) this.#kernelChips(this.#section("Kernels"), kernels);
    this.#counts(inside);
  }

  node(item) {
    const { node } = item;
    this.#start(node.op, item.id);
    const outputs = node.out ?? [];
    if (outputs.length) {
      this.#rows(this.#section(outputs.length === 1 ? "Output" : "Outputs"),
        outputs.map((type, i) => [outputs.length === 1 ? "type" : `:${i}`, this.scene.typeText(type)]));
    }
    this.#line(this.scene.line(node.line));
    if (item.inputs.length) {
      const section = this.#section("Inputs", String(item.inputs.length));
      this.#edges(section, item.inputs, (edge) => edge.from);
    }
    if (item.users.length) {
      const section = this.#section("Used by", String(item.users.length));
      this.#edges(section, item.users, (edge) => edge.to);
    }
    const attrs = Object.entries(node.attrs ?? {});
    if (attrs.length) this.#rows(this.#section("Attributes"), attrs);
    const origin = (node.origin ?? []).filter((name) => name !== item.id);
    if (origin.length) {
      const section = this.#section("Comes from", String(origin.length));
      const list = html("ul", "links", null, section);
      for (const name of origin.slice(0, MOST)) html("li", "path", name, list);
    }
    if (item.kernels.length) {
      this.#kernelChips(this.#section("Kernel", item.kernels.length > 1 ? "computed by each of these" : undefined),
        item.kernels);
      this.#sources(item.kernels[0]);
    } else if (this.scene.data.kernels.length && item.kind === "op") {
      html("p", "note", "No kernel computes it: it was folded, removed, or costs nothing.", this.#section("Kernel"));
    }
  }

  #edges(section, edges, end) {
    const list = html("ul", "links", null, section);
    for (const edge of edges.slice(0, MOST)) {
      const item = end(edge);
      const button = html("button", "link", null, html("li", "", null, list));
      html("span", "path", item.id, button);
      const types = edge.from.node.out ?? [];
      html("span", "note", edge.output < 0 ? "waits" : this.scene.typeShort(types[edge.output]), button);
      button.addEventListener("click", () => this.go(item.id));
    }
    if (edges.length > MOST) html("li", "note", `and ${edges.length - MOST} more`, list);
  }

  kernelPage(number, stage) {
    const kernel = this.scene.data.kernels[number];
    const head = this.#start(`kernel ${number}`, kernel.name);
    head.style.setProperty("--hue", hueOf(number));
    head.classList.add("in-kernel");
    this.#sources(number);
    if (kernel.lines.length) {
      const section = this.#section("Written at", String(kernel.lines.length));
      for (const line of kernel.lines.slice(0, MOST)) {
        const [place, ...code] = this.scene.line(line).split(":   ");
        html("div", "note", place, section);
        if (code.length) html("pre", "code", null, section).append(...painted(code.join(":   ")));
      }
    }
    const known = kernel.ops.filter((id) => stage.byId.has(id));
    const section = this.#section("Operations in it", String(kernel.ops.length));
    this.#links(section, known, (id) => stage.byId.get(id).node?.op ?? "");
    if (known.length < kernel.ops.length) {
      html("p", "note", `${kernel.ops.length - known.length} of them have other names in this stage`, section);
    }
  }

  #sources(number) {
    const forms = Object.entries(this.scene.data.kernels[number].sources);
    const section = this.#section("Source");
    const tabs = html("div", "tabs", null, section);
    tabs.setAttribute("role", "tablist");
    const code = html("pre", "code kernel-source", null, section);
    code.tabIndex = 0;
    const buttons = forms.map(([form, text], i) => {
      const button = html("button", "tab", form, tabs);
      button.setAttribute("role", "tab");
      button.addEventListener("click", () => show(i));
      return [button, text];
    });
    const show = (chosen) => {
      buttons.forEach(([button], i) => button.setAttribute("aria-selected", String(i === chosen)));
      code.replaceChildren(...painted(buttons[chosen][1]));
    };
    if (forms.length) show(0);
  }
}

const WORDS = new Set(("def return for in range if else elif while and or not min max True False None kernel let reduce over " +
  "parallel local scan yield contract scatter").split(" "));

/** Code as text nodes and coloured spans. */
function painted(code) {
  const parts = [];
  const pattern = /(#[^\n]*)|("[^"\n]*"|'[^'\n]*')|\b(\d+(?:\.\d*)?(?:e[-+]?\d+)?)\b|([A-Za-z_]\w*)/g;
  let at = 0;
  for (const match of code.matchAll(pattern)) {
    const [text, comment, string, number, word] = match;
    const kind = comment ? "comment" : string ? "string" : number ? "number" : WORDS.has(word) ? "word" : "";
    if (!kind) continue;
    if (match.index > at) parts.push(document.createTextNode(code.slice(at, match.index)));
    parts.push(html("span", `code-${kind}`, text));
    at = match.index + text.length;
  }
  if (at < code.length) parts.push(document.createTextNode(code.slice(at)));
  return parts;
}
