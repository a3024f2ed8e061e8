"use strict";
/* The page: what is open, chosen and searched for, and how mouse, fingers and keys change it.
 *
 * Owns the state of the page.  Invariants: it starts collapsed; at most MOST_SHOWN items are visible, so that every
 * change of the drawing stays quick: what was opened longest ago is closed for what is opened now.
 */

const MOST_SHOWN = 500;
const SMALL = 36; // a drawing of so few operations starts expanded
const MOST_RESULTS = 60;

class Page {
  constructor(data) {
    const started = performance.now();
    this.scene = new Scene(data);
    this.parts = Object.fromEntries([...document.querySelectorAll("[id]")].map((e) => [e.id, e]));
    this.canvas = new Canvas(this.parts.canvas, this.scene);
    this.layout = new Layout((item) => this.canvas.sizeOf(item), (item) => this.canvas.tapSize(item), (bundle) => this.#label(bundle),
      (text) => this.canvas.width(text, FONT.sizes));
    this.panel = new Panel(this.parts.panel, this.scene, {
      go: (id) => this.reveal(id), kernel: (number) => this.chooseKernel(number), toggle: (id) => this.toggle(id),
    });
    this.open = new Set();
    this.selected = null;
    this.kernel = null;
    this.control = false;
    this.search = { text: "", items: [], at: -1 };
    this.stage = this.scene.stage(this.#firstStage());
    if (this.stage.nodes.length <= SMALL) this.#openAll();
    this.#wire();
    this.#legend();
    this.#passes();
    this.draw();
    this.canvas.fit(true);
    this.#tell();
    document.documentElement.dataset.ready = (performance.now() - started).toFixed(1);
  }

  #firstStage() {
    const wanted = document.getElementById("scene").dataset.stage;
    const found = this.scene.data.stages.findLastIndex((stage) => stage.name === wanted);
    return Math.max(found, 0);
  }

  #label(bundle) {
    if (bundle.isControl || bundle.from.kind === "constant") return "";
    const types = new Set();
    for (const { from, output } of bundle.edges) if (output >= 0) types.add(`${from.id}:${output}`);
    if (types.size > 1) return `${types.size} tensors`;
    const { from, output } = bundle.edges.find((edge) => edge.output >= 0);
    return shortened(this.scene.typeShort(from.node.out[output]), 24);
  }

  // -- drawing -------------------------------------------------------------------------------------------------------

  /** Draw what is visible now; `anchor`: an item that stays where it is on the screen. */
  draw(anchor) {
    const before = anchor && this.canvas.screen(anchor);
    this.visible = this.stage.show(this.open);
    const { marks, inside } = this.stage.changes;
    this.canvas.draw(this.layout.run(this.stage, this.open, this.stage.bundles(this.control)), marks, inside);
    if (before) {
      const after = this.canvas.screen(anchor);
      this.canvas.move(before.x - after.x, before.y - after.y);
    }
    this.#mark();
  }

  #mark() {
    const hits = new Set(this.search.items.map((item) => item.shown.id));
    const hit = this.search.items[this.search.at]?.shown.id ?? null;
    this.canvas.mark({ selected: this.selected, hits, hit, kernel: this.#ofKernel() });
  }

  /** The ids of the visible items that kernel `this.kernel` computes, or that hold such. */
  #ofKernel() {
    if (this.kernel === null) return null;
    const found = new Set();
    for (const item of [...this.stage.nodes, ...this.stage.groups]) {
      if (!item.kernels.includes(this.kernel)) continue;
      found.add(item.shown.id);
      for (const box of item.shown.around()) if (box.parent) found.add(box.id);
    }
    return found;
  }

  #tell() {
    const item = this.stage.byId.get(this.selected);
    if (this.kernel !== null) this.panel.kernelPage(this.kernel, this.stage);
    else if (!item) this.panel.overview(this.stage);
    else if (item.isGroup) this.panel.group(item, this.open.has(item.id));
    else this.panel.node(item);
  }

  toast(text) {
    this.parts.toast.textContent = text;
    this.parts.toast.classList.add("shown");
    clearTimeout(this.toastEnds);
    this.toastEnds = setTimeout(() => this.parts.toast.classList.remove("shown"), 3200);
  }

  // -- opening and closing -------------------------------------------------------------------------------------------

  toggle(id) {
    const item = this.stage.byId.get(id);
    if (!item?.isGroup) return;
    if (this.open.has(id)) this.open.delete(id);
    else this.#openBox(item);
    this.draw(item);
    this.canvas.element.querySelector(".item.selected")?.focus({ preventScroll: true });
    this.#tell();
  }

  /** Open a box and the boxes around it, and close those opened longest ago where too much would be visible. */
  #openBox(item) {
    const needed = new Set([item.id]);
    for (const box of item.around()) if (box.parent) needed.add(box.id);
    for (const id of [...needed].reverse()) {
      this.open.delete(id); // a set keeps the order of adding: now it is the last opened
      this.open.add(id);
    }
    let closed = 0;
    while (this.stage.show(this.open).length > MOST_SHOWN) {
      const oldest = [...this.open].find((id) => !needed.has(id));
      if (oldest === undefined) break;
      this.open.delete(oldest);
      closed += 1;
    }
    if (closed) this.toast(`At most ${MOST_SHOWN} boxes are shown: ${closed} opened earlier ${closed === 1 ? "was" : "were"} closed`);
  }

  /** Open boxes level by level as long as they fit; return whether all fitted. */
  #openAll() {
    let count = this.stage.show(this.open).length;
    let row = [this.stage.root];
    let all = true;
    while (row.length) {
      const next = [];
      for (const child of row.flatMap((box) => box.children)) {
        if (!child.isGroup) continue;
        if (!this.open.has(child.id)) {
          if (count + child.children.length > MOST_SHOWN) {
            all = false;
            continue;
          }
          this.open.add(child.id);
          count += child.children.length;
        }
        next.push(child);
      }
      row = next;
    }
    return all;
  }

  expandAll() {
    const all = this.#openAll();
    this.draw();
    this.canvas.fit(true);
    this.#tell();
    if (!all) this.toast(`Not all boxes are open: at most ${MOST_SHOWN} are shown at once`);
  }

  collapseAll() {
    this.open.clear();
    this.draw();
    this.canvas.fit(true);
    this.#tell();
  }

  // -- choosing ------------------------------------------------------------------------------------------------------

  select(id, focus = true) {
    this.kernel = null;
    this.selected = id;
    this.#mark();
    this.#tell();
    if (focus && id !== null) this.canvas.cards.get(id)?.focus({ preventScroll: true });
  }

  chooseKernel(number) {
    this.kernel = number;
    this.#mark();
    this.#tell();
    const items = [...this.#ofKernel()].map((id) => this.stage.byId.get(id)).filter((item) => !this.open.has(item.id));
    if (items.length) this.canvas.center(items[0], true);
  }

  /** Open what is around an item, bring it into sight and choose it. */
  reveal(id, focus = true) {
    const item = this.stage.byId.get(id);
    if (!item) return;
    const closed = [...item.around()].some((box) => box.parent && !this.open.has(box.id));
    if (closed) {
      this.#openBox(item.parent);
      this.draw();
    }
    if (this.canvas.view.scale < 0.5) this.canvas.zoom(0.85 / this.canvas.view.scale);
    this.canvas.center(item, !closed);
    this.select(id, focus);
  }

  // -- search --------------------------------------------------------------------------------------------------------

  find(text) {
    const words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = (item) => {
      item.told ??= (item.isGroup ? item.id : `${item.id} ${item.node.op} ${this.scene.line(item.node.line)}`).toLowerCase();
      return words.every((word) => item.told.includes(word));
    };
    const all = words.length ? [...this.stage.groups.filter((g) => g.kind !== "block"), ...this.stage.nodes] : [];
    const rank = (item) => { // the name itself, its beginning, a part of a name, then what is only written on the line
      const label = item.label.toLowerCase();
      return label === words[0] ? 0 : label.startsWith(words[0]) ? 1 : item.id.toLowerCase().includes(words[0]) ? 2 : 3;
    };
    const items = all.filter(wanted).map((item) => [rank(item), item]).sort((p, q) => p[0] - q[0]).map(([, item]) => item);
    this.search = { text, items, at: -1 };
    this.#results();
    this.#mark();
  }

  step(by) {
    const { items } = this.search;
    if (!items.length) return;
    this.search.at = this.search.at < 0 ? (by > 0 ? 0 : items.length - 1) : (this.search.at + by + items.length) % items.length;
    this.#results();
    this.reveal(items[this.search.at].id, false);
  }

  #results() {
    const { text, items, at } = this.search;
    const { results, search, found } = this.parts;
    found.textContent = !text.trim() ? "" : at < 0 ? `${items.length} found` : `${at + 1} of ${items.length}`;
    const shown = items.length > 0 && document.activeElement === search;
    results.hidden = !shown;
    search.setAttribute("aria-expanded", String(shown));
    const first = Math.max(0, Math.min(at - 5, items.length - MOST_RESULTS));
    results.replaceChildren(...items.slice(first, first + MOST_RESULTS).map((item, i) => {
      const row = html("div", "result");
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(first + i === at));
      html("span", "path", item.isGroup ? item.id.replace(/\/$/, "") : item.id, row);
      html("span", "note", item.isGroup ? item.kind : item.node.op, row);
      row.addEventListener("pointerdown", (event) => {
        event.preventDefault();
        this.search.at = first + i - 1;
        this.step(1);
      });
      return row;
    }));
    results.querySelector("[aria-selected=true]")?.scrollIntoView({ block: "nearest" });
  }

  // -- passes --------------------------------------------------------------------------------------------------------

  #passes() {
    const { stages } = this.scene.data;
    if (stages.length < 2) return;
    this.parts.passes.hidden = false;
    this.canvas.below = 96;
    this.parts.pass.max = String(stages.length - 1);
    this.parts.ticks.replaceChildren(...stages.map(() => html("i", "")));
    this.#passTold();
  }

  #passTold() {
    const { pass, ticks, earlier, later } = this.parts;
    const { number, name, nodes, changes } = this.stage;
    pass.value = String(number);
    pass.setAttribute("aria-valuetext", name);
    this.parts["pass-name"].textContent = name;
    const parts = [`${nodes.length.toLocaleString("en")} operations`];
    if (number > 0 && changes.added) parts.push(`${changes.added} new`);
    if (number > 0 && changes.changed) parts.push(`${changes.changed} changed`);
    if (number > 0 && changes.gone.length) parts.push(`${changes.gone.length} gone`);
    this.parts["pass-told"].textContent = parts.join(" · ");
    [...ticks.children].forEach((tick, i) => tick.classList.toggle("on", i <= number));
    earlier.disabled = number === 0;
    later.disabled = number === this.scene.data.stages.length - 1;
  }

  goToStage(number) {
    const last = this.scene.data.stages.length - 1;
    const wanted = Math.min(last, Math.max(0, number));
    if (wanted === this.stage.number) return;
    const before = this.stage.byId.get(this.selected);
    const at = before && this.canvas.screen(before.shown);
    this.stage = this.scene.stage(wanted);
    this.find(this.search.text);
    this.parts.results.hidden = true;
    this.draw();
    const after = this.stage.byId.get(this.selected);
    const now = after && this.canvas.screen(after.shown);
    if (at && now) this.canvas.move(at.x - now.x, at.y - now.y);
    else this.canvas.fit(true);
    this.#passTold();
    this.#tell();
  }

  // -- legend, theme, keys -------------------------------------------------------------------------------------------

  #legend() {
    const rows = [["op", "operation"], ["scope", "box, collapsed"], ["variable", "variable"], ["input", "input"],
      ["constant", "constant"], ["output", "result"]];
    if (this.scene.data.kernels.length) rows.push(["kernel", "colour: its kernel"]);
    if (this.scene.data.stages.length > 1) rows.push(["new", "new in this pass"], ["changed", "changed"]);
    for (const [kind, text] of rows) {
      const row = html("span", "row", null, this.parts.legend);
      html("i", `sample sample-${kind}`, null, row);
      html("span", "", text, row);
    }
  }

  #theme(wanted) {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
    document.documentElement.dataset.theme = wanted ?? (now === "dark" ? "light" : "dark");
  }

  #help() {
    const { keys, help } = this.parts;
    if (keys.open) return keys.close();
    const rows = [["/", "search; Enter and Shift+Enter go through the results"], ["arrows", "move between boxes"],
      ["Enter", "tell about the chosen one"], ["Space", "expand or collapse it"], ["E, C", "expand all that fits, collapse all"],
      ["+  −  0", "zoom in, zoom out, fit"], ["[  ]", "pass before, next pass"], ["W", "control edges"],
      ["Esc", "choose nothing"], ["mouse", "drag moves, wheel zooms, double click expands"]];
    keys.replaceChildren();
    html("h2", "", "Keys", keys);
    const list = html("dl", "", null, keys);
    for (const [key, text] of rows) {
      html("dt", "", key, list);
      html("dd", "", text, list);
    }
    const close = html("button", "action", "Close", keys);
    close.addEventListener("click", () => keys.close());
    keys.addEventListener("close", () => help.setAttribute("aria-expanded", "false"), { once: true });
    help.setAttribute("aria-expanded", "true");
    keys.showModal();
  }

  #toggleControl() {
    this.control = !this.control;
    this.parts.control.setAttribute("aria-pressed", String(this.control));
    this.draw(this.stage.byId.get(this.selected)?.shown);
  }

  // -- events --------------------------------------------------------------------------------------------------------

  #wire() {
    const on = (id, event, action) => this.parts[id].addEventListener(event, action);
    on("open-all", "click", () => this.expandAll());
    on("close-all", "click", () => this.collapseAll());
    on("control", "click", () => this.#toggleControl());
    on("zoom-in", "click", () => this.canvas.zoom(1.3));
    on("zoom-out", "click", () => this.canvas.zoom(1 / 1.3));
    on("fit", "click", () => this.canvas.fit());
    on("theme", "click", () => this.#theme());
    on("help", "click", () => this.#help());
    on("pass", "input", (event) => this.goToStage(Number(event.target.value)));
    on("earlier", "click", () => this.goToStage(this.stage.number - 1));
    on("later", "click", () => this.goToStage(this.stage.number + 1));
    on("search", "input", (event) => this.find(event.target.value));
    on("search", "focus", () => this.#results());
    on("search", "blur", () => this.#results());
    on("search", "keydown", (event) => this.#searchKey(event));
    document.addEventListener("keydown", (event) => this.#key(event));
    this.#pointers(this.parts.canvas);
    this.#splitter(this.parts.splitter, this.parts.panel);
  }

  #splitter(bar, panel) {
    const set = (width) => {
      panel.style.width = `${Math.round(Math.min(innerWidth * 0.7, Math.max(240, width)))}px`;
    };
    bar.addEventListener("pointerdown", (event) => bar.setPointerCapture(event.pointerId));
    bar.addEventListener("pointermove", (event) => {
      if (bar.hasPointerCapture(event.pointerId)) set(innerWidth - event.clientX);
    });
    bar.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: 32, ArrowRight: -32 }[event.key];
      if (by) set(panel.offsetWidth + by);
    });
  }

  #searchKey(event) {
    if (event.key === "Enter" || event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      this.step(event.key === "ArrowUp" || event.shiftKey ? -1 : 1);
    } else if (event.key === "Escape") {
      event.preventDefault();
      event.target.value = "";
      this.find("");
      event.target.blur();
    }
    event.stopPropagation();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || this.parts.keys.open) return;
    if (event.target instanceof HTMLInputElement) return;
    const onCanvas = this.parts.canvas.contains(event.target) || event.target === document.body;
    const item = this.stage.byId.get(event.target.dataset?.id ?? this.selected);
    const actions = {
      "/": () => this.parts.search.focus(),
      "+": () => this.canvas.zoom(1.3), "=": () => this.canvas.zoom(1.3), "-": () => this.canvas.zoom(1 / 1.3),
      0: () => this.canvas.fit(),
      "[": () => this.goToStage(this.stage.number - 1), "]": () => this.goToStage(this.stage.number + 1),
      e: () => this.expandAll(), c: () => this.collapseAll(), w: () => this.#toggleControl(),
      "?": () => this.#help(),
      Escape: () => this.select(null),
    };
    if (onCanvas) {
      for (const [key, dx, dy] of [["ArrowLeft", -1, 0], ["ArrowRight", 1, 0], ["ArrowUp", 0, -1], ["ArrowDown", 0, 1]]) {
        actions[key] = () => this.#walk(dx, dy);
      }
      if (item) {
        actions.Enter = () => this.select(item.id);
        actions[" "] = () => {
          this.selected = item.id;
          this.toggle(item.id);
        };
      }
    }
    const action = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (!action) return;
    event.preventDefault();
    action();
  }

  /** Choose the nearest visible item in a direction; the one in the middle of the view where none is chosen. */
  #walk(dx, dy) {
    const now = this.stage.byId.get(this.selected);
    const start = now && now.shown === now ? this.canvas.screen(now) : null;
    const frame = this.parts.canvas.getBoundingClientRect();
    const [x, y] = start ? [start.x + start.width / 2, start.y + start.height / 2] : [frame.width / 2, frame.height / 3];
    let best = null;
    let least = Infinity;
    for (const item of this.visible) {
      if (item === now) continue;
      const box = this.canvas.screen(item);
      const open = item.isGroup && this.open.has(item.id);
      const [px, py] = [box.x + box.width / 2 - x, (open ? box.y + 14 : box.y + box.height / 2) - y];
      const along = px * dx + py * dy;
      const aside = Math.abs(px * dy) + Math.abs(py * dx);
      if (start && along <= 2) continue;
      const far = start ? along + 2.2 * aside : Math.hypot(px, py);
      if (far < least) [best, least] = [item, far];
    }
    if (!best) return;
    this.select(best.id);
    this.canvas.center(best, true);
  }

  /** Drag moves, two fingers zoom, a click chooses, a double click opens. */
  #pointers(element) {
    const down = new Map();
    let moved = 0;
    let spread = 0;
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      if (!down.size) moved = 0;
      down.set(event.pointerId, event);
      spread = 0;
    });
    element.addEventListener("pointermove", (event) => {
      const last = down.get(event.pointerId);
      if (!last) return;
      const [dx, dy] = [event.clientX - last.clientX, event.clientY - last.clientY];
      moved += Math.abs(dx) + Math.abs(dy);
      if (moved > 4 && !element.hasPointerCapture(event.pointerId)) {
        element.setPointerCapture(event.pointerId);
        element.classList.add("dragging");
      }
      down.set(event.pointerId, event);
      if (down.size === 1 && moved > 4) this.canvas.move(dx, dy);
      if (down.size === 2) {
        const [p, q] = [...down.values()];
        const now = Math.hypot(p.clientX - q.clientX, p.clientY - q.clientY);
        if (spread) this.canvas.zoom(now / spread, (p.clientX + q.clientX) / 2, (p.clientY + q.clientY) / 2);
        spread = now;
      }
    });
    const end = (event) => {
      down.delete(event.pointerId);
      element.classList.remove("dragging");
    };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
    element.addEventListener("click", (event) => {
      if (moved > 4) return;
      const id = event.target.closest(".item")?.dataset.id ?? null;
      const tap = event.target.closest(".tap");
      if (tap) {
        this.reveal(tap.dataset.go);
      } else if (id !== null && event.target.closest(".toggle")) {
        this.kernel = null;
        this.selected = id;
        this.toggle(id);
      } else {
        this.select(id);
      }
    });
    element.addEventListener("dblclick", (event) => {
      const id = event.target.closest(".item")?.dataset.id;
      if (id && !event.target.closest(".toggle")) this.toggle(id);
    });
    element.addEventListener("wheel", (event) => {
      event.preventDefault();
      const lines = event.deltaMode === 1 ? 16 : 1;
      if (event.shiftKey) this.canvas.move(-event.deltaX * lines - event.deltaY * lines, 0);
      else this.canvas.zoom(Math.exp((-event.deltaY * lines) / 480), event.clientX, event.clientY);
    }, { passive: false });
  }
}

const page = new Page(JSON.parse(document.getElementById("scene").textContent));
