// The playground without a kernel: choices, drawings from numbers, and one digit to follow.
// Without this file, or where a browser cannot compute, the pictures of the page stay.
(() => {
  const home = new URL(".", document.currentScript.src);
  const { html, svg, number, percent, ...drawing } = quantskewDrawing;
  const MOST_KEPT = 60;
  const FLOATING = ["fp32", "fp16"];
  const PRECISIONS = [...FLOATING, ...[8, 7, 6, 5, 4, 3, 2, 1].map((bits) => `int${bits}`)];
  const REFERENCE = { precision: "fp32", bits: null };
  const STEP = 0.01;

  class Playground {
    constructor(host, files, pictures) {
      this.pictures = pictures;
      this.files = files;
      this.models = {};
      this.kept = new Map();
      this.first = { experiment: Object.keys(files)[0], precision: "int4" };
      this.state = { ...this.first, layers: {}, layer: 0, image: 0, drawn: null, meant: 0 };
      this.root = html("section", { class: "live", "aria-label": "The playground, computed in this page" });
      host.append(this.root);
    }

    async start() {
      this.model = await this.load(this.first.experiment);
      this.choices = { experiment: Object.fromEntries(Object.keys(this.files).map((name) => [name, {}])),
        precision: Object.fromEntries(PRECISIONS.map((name) => [name, {}])), ...this.model.choices };
      // One that was added in Python alone has no button here.
      const known = Object.entries(this.choices.scheme).filter(([name]) => quantskew.schemes.includes(name));
      this.choices.scheme = Object.fromEntries(known);
      for (const [name, known] of Object.entries(this.choices)) this.first[name] ??= Object.keys(known)[0];
      Object.assign(this.state, this.first);
      this.read();
      // What was chosen last, here or on another page; a link says what it means.
      const chosen = this.pictures.querySelector("input:checked")?.value;
      if (!location.hash.includes("=") && PRECISIONS.includes(chosen)) this.state.precision = chosen;
      this.build();
      // Other addresses are places of the page.
      addEventListener("hashchange", () => {
        if (!location.hash.includes("=")) return;
        this.read();
        this.update();
      });
      await this.update();
    }

    // The model of an experiment, whose file is asked for when it is chosen.
    async load(name) {
      if (this.models[name]) return this.models[name];
      await new Promise((done, failed) => {
        const failure = () => failed(new Error(`${this.files[name]} cannot be read`));
        document.head.append(html("script", { src: new URL(this.files[name], home), onload: done, onerror: failure }));
      });
      const model = new quantskew.Model(quantskewModels[name]);
      model.reference = await model.run(REFERENCE);
      this.models[name] = model;
      return model;
    }

    get quantizer() {
      const { precision, layers } = this.state, bits = precision.startsWith("int") ? Number(precision.slice(3)) : null;
      const options = Object.keys(this.model.choices).map((name) => this.choices[name][this.state[name]]);
      return Object.assign({ precision, bits, scheme: "banner", layers }, ...options);
    }

    get named() {
      const { experiment, precision, layers } = this.state;
      const others = Object.keys(this.model.choices)
        .filter((name) => this.state[name] !== this.first[name])
        .map((name) => (["scheme", "grid"].includes(name) ? "" : `${name.replaceAll("_", " ")} `) + this.state[name]);
      const own = Object.keys(layers).length, set = own ? [`${own} layer${own > 1 ? "s" : ""} set by hand`] : [];
      return [experiment, precision, ...others, ...set].join(", ");
    }

    // ---- the address: what is chosen, as a link that can be copied ----

    read() {
      const asked = new URLSearchParams(location.hash.slice(1)), { state, model } = this;
      for (const [name, known] of Object.entries(this.choices)) {
        state[name] = Object.hasOwn(known, asked.get(name)) ? asked.get(name) : this.first[name];
      }
      state.layers = {};
      const within = (k) => Number.isInteger(k) && k >= 0 && k < model.layers.length;
      for (const part of asked.get("layers")?.split(",") ?? []) {
        const [k, bits, low, high] = part.split(":").map((own) => (own === "" ? null : Number(own)));
        if (!within(k)) continue;
        const own = {};
        if (bits >= 1 && bits <= 8) own.bits = Math.round(bits);
        if (low < high && Number.isFinite(high - low)) own.clip = [low, high];
        if (Object.keys(own).length) state.layers[k] = own;
      }
      const layer = Number(asked.get("layer")), image = Number(asked.get("image"));
      state.layer = within(layer) ? layer : 0;
      state.image = Number.isInteger(image) && image >= 0 && image < model.count ? image : 0;
      const drawn = asked.get("drawn") ?? "", [, ink, meant] = /^([0-9a-g]{64})(\d)$/.exec(drawn) ?? [];
      state.drawn = ink ? Uint8Array.from(ink, (sign) => Math.round((parseInt(sign, 17) * 255) / 16)) : null;
      state.meant = Number(meant ?? 0);
    }

    write() {
      const { state } = this, said = new URLSearchParams();
      for (const name of Object.keys(this.choices)) if (state[name] !== this.first[name]) said.set(name, state[name]);
      const layers = Object.entries(state.layers).map(([k, { bits, clip }]) => [k, bits, ...(clip ?? [])].join(":"));
      if (layers.length) said.set("layers", layers.join());
      for (const name of ["layer", "image"]) if (state[name]) said.set(name, state[name]);
      if (state.drawn) {
        const inks = Array.from(state.drawn, (ink) => Math.round((ink * 16) / 255).toString(17));
        said.set("drawn", inks.join("") + state.meant);
      }
      const text = said.toString();
      if (!text && !location.hash.includes("=")) return;
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    }

    // ---- what stays ----

    build() {
      const part = (name, title, ...children) => {
        const id = `live-${name}`;
        const head = html("p", { class: "live-title", id }, title);
        return html("section", { class: id, "aria-labelledby": id }, head, children);
      };
      this.rows = {};
      const rows = Object.entries(this.choices).map(([name, known]) => this.row(name, Object.keys(known)));
      this.summary = html("p", { class: "live-summary", role: "status" });
      this.copied = html("span", { role: "status" });
      const button = (text, press) => html("button", { type: "button", onclick: press }, text);
      this.layersArea = html("div", { class: "live-layers" });
      this.weightsArea = html("div", { class: "live-histogram" });
      this.chain = html("div", {
        class: "live-panels", tabindex: 0, role: "group", onkeydown: (event) => this.step(event),
        onpointerleave: () => this.point(null),
        "aria-label": "The chain, a panel for each measure. The arrow keys read the groups one by one.",
      });
      this.readout = html("p", { class: "live-readout", "aria-live": "polite" });
      this.table = html("div", { class: "live-table", tabindex: 0, role: "region", "aria-label": "All numbers" });
      this.follow = html("div", { class: "live-digit" });
      this.gallery = html("div", { class: "live-gallery" });
      this.root.replaceChildren(
        ...rows,
        html("p", { class: "live-actions" }, button("Copy a link to this", () => this.copy()),
          button("Start again", () => this.restart()), this.copied),
        this.summary,
        part("weights", "The weights", this.layersArea, this.weightsArea),
        part("chain", "The chain", this.chain, this.readout,
          html("details", {}, html("summary", {}, "All numbers"), this.table)),
        part("one", "One digit", this.follow),
        part("flips", "Every digit that flips", this.gallery),
      );
      this.buildLayers();
      this.buildDigit();
    }

    row(name, known) {
      const buttons = known.flatMap((value, place) => {
        const id = `live-${name}-${place}`;
        const press = () => { this.state[name] = value; this.update(); };
        const input = html("input", { type: "radio", name: `live-${name}`, id, value, onchange: press });
        (this.rows[name] ??= {})[value] = input;
        return [input, html("label", { for: id }, value)];
      });
      return html("fieldset", { class: "live-choice" }, html("legend", {}, name.replaceAll("_", " ")), ...buttons);
    }

    restart() {
      history.replaceState(null, "", "#=");
      this.read();
      this.update();
    }

    async copy() {
      try {
        await navigator.clipboard.writeText(location.href);
        this.copied.textContent = "The link is on the clipboard.";
      } catch {
        this.copied.textContent = "The address of this page is the link.";
      }
    }

    // ---- after each change: the weights at once, the rest when the workers are done ----

    async update() {
      performance.mark("pressed");
      const { state } = this;
      if (this.models[state.experiment]) this.model = this.models[state.experiment];
      for (const [name, inputs] of Object.entries(this.rows)) inputs[state[name]].checked = true;
      this.write();
      this.follows();
      this.showFirst();
      performance.measure("weights", "pressed");
      if (this.busy) return;
      this.busy = true;
      try {
        do {
          const model = await this.load(this.state.experiment);
          if (model !== this.model) {
            this.model = model;
            this.showFirst();
          }
        } while (!(await this.measure()));
        performance.measure("measures", "pressed");
      } catch (error) {
        this.result = null;
        this.summary.replaceChildren(html("span", { role: "alert" }, `This cannot be computed here: ${error.message}`));
      } finally {
        this.busy = false;
      }
    }

    // What needs one image at most.
    showFirst() {
      const layers = this.model.quantized(this.quantizer);
      this.showLayers(layers);
      this.showWeights(layers);
      this.showDigit();
    }

    // Show what all images say; whether that is of what is still chosen, which dragging may have changed.
    async measure() {
      const { model, quantizer, named, key } = this;
      if (!this.kept.has(key)) {
        const layers = model.quantized(quantizer), logits = await model.run(quantizer);
        this.kept.set(key, quantskew.measured(model, layers, logits, model.reference));
        if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value);
      }
      const result = this.kept.get(key);
      if (result !== this.result) {
        this.result = result;
        this.showSummary(named);
        this.showChain();
        this.showTable();
        this.showGallery();
      }
      return key === this.key;
    }

    get key() {
      return JSON.stringify([this.state.experiment, this.quantizer]);
    }

    // The pictures below, which print shows, and the controls of other pages follow.
    follows() {
      const own = [...this.pictures.querySelectorAll("input")].find(({ value }) => value === this.state.precision);
      if (!own || own.checked) return;
      own.checked = true;
      own.dispatchEvent(new Event("change", { bubbles: true }));
    }

    showSummary(named) {
      const { whole, lost, gained } = this.result;
      this.summary.textContent = `${named}: overall accuracy ${number(whole.accuracy)}, FVO ${number(whole.fvo)}, `
        + `share of zeros ${percent(whole.sparsity)}, mean |W~ − W| ${number(whole.absolute_difference, 4)}. `
        + `No longer right: ${lost.length} of ${this.model.count} test images. Right only now: ${gained.length}.`;
    }

    // ---- the weights: bits of each layer, and the grid of one ----

    buildLayers() {
      const heads = ["layer", "bits", "", "zeros", ""].map((text) => html("span", {}, text));
      this.layersArea.append(html("div", { class: "live-layer live-head", "aria-hidden": "true" }, heads));
      this.sliders = this.model.layers.map(({ name }, k) => {
        const choose = html("button", {
          type: "button", onclick: () => { this.state.layer = k; this.update(); },
        }, name);
        const slider = html("input", {
          type: "range", min: 1, max: 8, step: 1, "aria-label": `bits of ${name}`,
          oninput: ({ target }) => this.own(k, { bits: Number(target.value) }),
        });
        const [said, zeros] = [html("output"), html("span")];
        const back = html("button", {
          type: "button", "aria-label": `${name} as the others`, onclick: () => this.own(k, { bits: undefined }),
        }, "×");
        this.layersArea.append(html("div", { class: "live-layer" }, choose, slider, said, zeros, back));
        return { choose, slider, said, zeros, back };
      });
    }

    // Give a layer bits or ends of its own, or take them away.
    own(k, choice) {
      const { layers } = this.state, own = { ...layers[k], ...choice };
      for (const name of Object.keys(own)) if (own[name] === undefined) delete own[name];
      this.state.layers = { ...layers, [k]: own };
      if (!Object.keys(own).length) delete this.state.layers[k];
      this.state.layer = k;
      this.update();
    }

    showLayers(layers) {
      layers.forEach(({ bits, zeros, weight }, k) => {
        const { choose, slider, said, zeros: share, back } = this.sliders[k];
        const chosen = this.state.layers[k]?.bits, floating = this.state.precision === "fp16";
        slider.value = bits ?? 8;
        slider.disabled = floating;
        slider.classList.toggle("floating", bits === null);
        const words = bits === null ? this.state.precision : `${bits} bit${bits > 1 ? "s" : ""}`;
        slider.setAttribute("aria-valuetext", words);
        said.textContent = words;
        share.textContent = percent(zeros / weight.length);
        choose.setAttribute("aria-pressed", k === this.state.layer);
        back.disabled = chosen === undefined;
      });
    }

    showWeights(layers) {
      const k = this.state.layer, { name } = this.model.layers[k], { bits, grids, zeros, weight } = layers[k];
      const clip = this.state.layers[k]?.clip, given = bits === null ? this.state.precision : `${bits} bits`;
      const shown = drawing.range(weight), ends = bits === null ? null : (clip ?? this.reached(grids));
      const spoken = `Weights of ${name}: ${given}, ${percent(zeros / weight.length)} are zero`;
      const picture = drawing.histogram(layers[k], spoken);
      const each = grids.length > 1 ? "; each channel has its own, and these are the outermost" : "";
      const hint = !ends ? " has no grid at this precision: give it some bits."
        : ` (outline: fp32${drawing.few(layers[k]) ? "; red: zeros" : ""}). `
          + `Drag the ends of the grid, or move them with the arrow keys${each}.`;
      const free = () => this.own(k, { clip: undefined });
      const own = clip ? [`One grid from ${number(clip[0], 3)} to ${number(clip[1], 3)}, whatever the scheme is. `,
        html("button", { type: "button", onclick: free }, "The scheme's ends")] : [];
      const focused = this.weightsArea.querySelector(":focus")?.dataset.end;
      this.weightsArea.replaceChildren(html("p", {}, html("strong", {}, name), hint), picture, html("p", {}, own));
      if (ends) picture.append(...[0, 1].map((end) => this.handle(picture, k, ends, end, shown)));
      if (focused) this.weightsArea.querySelector(`[data-end="${focused}"]`)?.focus();
    }

    // The outermost points of the grids of a layer.
    reached(grids) {
      const point = ({ zero, scale, offset }, code) => (code - zero) * scale + (offset ?? 0);
      const [lows, highs] = ["low", "high"].map((end) => grids.map((own) => point(own, own[end])));
      return [Math.min(...lows), Math.max(...highs)];
    }

    // One end of a grid, to be dragged.
    handle(picture, k, ends, end, shown) {
      const [low, high] = shown, gap = (high - low) / 200;
      const move = (value) => {
        const clip = [...ends];
        const [least, most] = end ? [clip[0] + gap, high] : [low, clip[1] - gap];
        clip[end] = Math.min(most, Math.max(least, value));
        this.own(k, { clip: clip.map((own) => Number(own.toPrecision(4))) });
      };
      return drawing.handle(ends[end], shown, end ? "largest value of the grid" : "smallest value of the grid", {
        "data-end": end,
        onkeydown: (event) => {
          const keys = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
          const steps = keys[event.key];
          if (!steps) return;
          event.preventDefault();
          move(ends[end] + steps * STEP * (high - low));
        },
        onpointerdown: (event) => {
          event.preventDefault();
          event.currentTarget.focus();
          const dragging = new AbortController(), { signal } = dragging;
          // Each step draws anew, so the page listens, and tells the handle that is there by then.
          addEventListener("pointermove", (moved) => {
            const now = this.weightsArea.querySelector(`[data-end="${end}"]`);
            now?.dispatchEvent(new CustomEvent("dragged", { detail: moved }));
          }, { signal });
          for (const name of ["pointerup", "pointercancel"]) addEventListener(name, () => dragging.abort(), { signal });
        },
        ondragged: ({ detail }) => move(drawing.pointed(picture, detail, shown)),
      });
    }

    // ---- the chain: a panel for each measure, a row for each group ----

    // The measures that the script knows too.
    get measures() {
      return this.model.measures.filter(({ key }) => key in this.result.groups);
    }

    showChain() {
      const { model, result } = this;
      model.before ??= quantskew.measured(model, model.quantized(REFERENCE), model.reference, model.reference).groups;
      this.frames ??= {};
      this.chain.replaceChildren(...this.measures.map((measure) => {
        const { key, log, limits, from_reference: distance } = measure;
        const rows = model.order.map((group) => ({
          group, look: model.groups[group], now: result.groups[key][group],
          before: distance ? null : model.before[key][group],
        }));
        const values = rows.flatMap(({ now, before }) => [now.value, before?.value ?? NaN])
          .filter((value) => Number.isFinite(value) && (value > 0 || !log));
        // Axes only grow, so that what moves has moved in the model.
        const frame = this.frames[key] ?? limits ?? measure.frame ?? [1, 1];
        this.frames[key] = [Math.min(frame[0], ...values), Math.max(frame[1], ...values)];
        return drawing.panel(measure, rows, this.frames[key], (group) => this.point(group));
      }));
      this.point(this.pointed ?? null);
    }

    // Read a group aloud, and show it in every panel at once.
    point(group) {
      this.pointed = group;
      for (const row of this.chain.querySelectorAll(".live-row")) {
        row.classList.toggle("pointed", Number(row.dataset.group) === group);
      }
      if (group === null) {
        this.readout.textContent = "Hollow markers: fp32. Lines: 95 % intervals. "
          + "Point at a row, or use the arrow keys, to read its numbers.";
        return;
      }
      const said = this.measures.map(({ key, title, digits, scientific }) => {
        const { value, interval } = this.result.groups[key][group], text = (own) => number(own, digits, scientific);
        return `${title} ${text(value)}${interval.every(Number.isFinite) ? ` [${interval.map(text).join(", ")}]` : ""}`;
      });
      const { name, images } = this.model.groups[group];
      this.readout.textContent = `${name} (${images} images in training): ${said.join("; ")}`;
    }

    step(event) {
      const steps = { ArrowDown: 1, ArrowUp: -1 }[event.key], { order } = this.model;
      if (!steps || !this.result) return;
      event.preventDefault();
      const place = this.pointed === null ? (steps > 0 ? -1 : order.length) : order.indexOf(this.pointed);
      this.point(order[(place + steps + order.length) % order.length]);
    }

    showTable() {
      const heads = ["group", ...this.measures.map(({ title }) => title)];
      const head = heads.map((text) => html("th", { scope: "col" }, text));
      const rows = this.model.order.map((group) => html("tr", {},
        html("th", { scope: "row" }, this.model.groups[group].name),
        this.measures.map(({ key, digits, scientific }) =>
          html("td", {}, number(this.result.groups[key][group].value, digits, scientific)))));
      this.table.replaceChildren(html("table", {}, html("thead", {}, html("tr", {}, head)), html("tbody", {}, rows)));
    }

    // ---- one digit: its picture, what is computed of it, and where it ends ----

    buildDigit() {
      const { model, state } = this;
      const button = (text, press, label = null) =>
        html("button", { type: "button", onclick: press, "aria-label": label }, text);
      this.which = html("input", {
        type: "number", min: 0, max: model.count - 1, id: "live-image",
        onchange: ({ target }) => this.take(Math.trunc(Number(target.value)) || 0),
      });
      this.meant = html("select", {
        id: "live-meant", onchange: ({ target }) => { state.meant = target.selectedIndex; this.update(); },
      }, model.classes.map((name) => html("option", {}, name)));
      this.meaning = html("span", {}, html("label", { for: "live-meant" }, "meant as a "), this.meant);
      this.bits = html("input", {
        type: "range", id: "live-bits", min: 0, max: PRECISIONS.length - 1, step: 1,
        oninput: ({ target }) => { state.precision = PRECISIONS[target.value]; this.update(); },
      });
      this.said = html("output", { for: "live-bits" });
      this.sheet = svg("svg", {
        viewBox: "0 0 8 8", class: "live-sheet", tabindex: 0, role: "application", "aria-describedby": "live-cell",
        "aria-label": "The image, to draw on: arrow keys move, space sets or wipes a pixel",
        onpointerdown: (event) => this.ink(event, true), onpointermove: (event) => this.ink(event, false),
        onkeydown: (event) => this.type(event),
      });
      this.cell = { x: 0, y: 0 };
      this.where = html("span", { id: "live-cell", class: "live-hidden", "aria-live": "polite" });
      this.verdict = html("p", { role: "status" });
      this.bars = html("div", { class: "live-bars" });
      const empty = () => this.draw(new Uint8Array(model.side ** 2));
      this.follow.append(
        html("div", { class: "live-picture" }, this.sheet, this.where,
          html("p", {}, button("‹", () => this.take(state.image - 1), "previous image"),
            html("label", { for: "live-image" }, " test image "), this.which,
            button("›", () => this.take(state.image + 1), "next image")),
          html("p", {}, button("Empty sheet", empty), " ", this.meaning)),
        html("div", { class: "live-story" },
          html("p", {}, html("label", { for: "live-bits" }, "precision "), this.bits, this.said),
          this.verdict, this.bars));
    }

    // Follow a test image; after the last one comes the first.
    take(image) {
      const { count } = this.model;
      Object.assign(this.state, { image: ((image % count) + count) % count, drawn: null });
      this.update();
    }

    draw(pixels) {
      if (!this.state.drawn) this.state.meant = this.model.labels[this.state.image];
      this.state.drawn = pixels;
      this.update();
    }

    get pixels() {
      const size = this.model.side ** 2, { image, drawn } = this.state;
      return drawn ?? this.model.pixels.slice(image * size, (image + 1) * size);
    }

    ink(event, first) {
      if (!event.buttons) return;
      event.preventDefault();
      this.sheet.focus();
      const { left, top, width, height } = this.sheet.getBoundingClientRect();
      const x = Math.floor((8 * (event.clientX - left)) / width), y = Math.floor((8 * (event.clientY - top)) / height);
      if (x < 0 || y < 0 || x > 7 || y > 7 || (!first && x === this.cell.x && y === this.cell.y)) return;
      this.cell = { x, y };
      // A line has the colour that its first pixel got.
      if (first) this.colour = this.inkAt(this.cell) > 127 ? 0 : 255;
      this.set(this.colour);
    }

    inkAt({ x, y }) {
      return this.pixels[8 * y + x];
    }

    set(colour) {
      const pixels = this.pixels.slice();
      pixels[8 * this.cell.y + this.cell.x] = colour;
      this.draw(pixels);
    }

    type(event) {
      const moves = { ArrowLeft: [7, 0], ArrowRight: [1, 0], ArrowUp: [0, 7], ArrowDown: [0, 1] };
      const [x, y] = { ...moves, " ": [0, 0], Enter: [0, 0] }[event.key] ?? [];
      if (x === undefined) return;
      event.preventDefault();
      this.cell = { x: (this.cell.x + x) % 8, y: (this.cell.y + y) % 8 };
      if (x || y) this.showSheet();
      else this.set(this.inkAt(this.cell) > 127 ? 0 : 255);
      const { cell } = this;
      this.where.textContent = `row ${cell.y + 1}, column ${cell.x + 1}: ${percent(this.inkAt(cell) / 255)} ink`;
    }

    showSheet() {
      const { x, y } = this.cell, size = { width: 1.02, height: 1.02 };
      const pixels = Array.from(this.pixels, (ink, k) =>
        svg("rect", { x: k % 8, y: Math.floor(k / 8), ...size, fill: `rgb(${ink} ${ink} ${ink})` }));
      const cursor = svg("rect", { class: "live-cursor", x: x + 0.05, y: y + 0.05, width: 0.9, height: 0.9 });
      this.sheet.replaceChildren(...pixels, cursor);
    }

    showDigit() {
      const { model, state } = this, { drawn, image, precision } = state, { classes } = model;
      this.showSheet();
      this.which.value = image;
      this.meaning.hidden = !drawn;
      this.meant.selectedIndex = state.meant;
      this.bits.value = PRECISIONS.indexOf(precision);
      this.bits.setAttribute("aria-valuetext", precision);
      this.said.textContent = precision;
      // One image is soon computed, and need not wait for all.
      const [before, now] = [REFERENCE, this.quantizer].map((own) => Array.from(model.of(this.pixels, own)));
      const [then, guess] = [before, now].map(quantskew.argmax), [old, shares] = [before, now].map(quantskew.softmax);
      const label = drawn ? state.meant : model.labels[image], right = [then === label, guess === label];
      const subject = `${drawn ? "Your drawing, meant as" : `Test image ${image},`} a ${classes[label]}`;
      const told = guess === then ? `at fp32 and at ${precision} the model says ${classes[guess]}`
        : `at fp32 the model says ${classes[then]}, at ${precision} it says ${classes[guess]}`;
      const flip = right[0] === right[1] ? ""
        : ` It flips: ${right[0] ? "right before, wrong now" : "wrong before, right now"}.`;
      const distances = `${number(old[label])} at fp32, ${number(shares[label])} now`;
      this.verdict.textContent = `${subject}: ${told}. Distance to the boundary ${distances}.${flip}`;
      const reach = Math.max(1, ...[...now, ...before].map(Math.abs));
      this.bars.replaceChildren(drawing.bars("logits", classes, label, now, before, [-reach, reach], 1),
        drawing.bars("softmax", classes, label, shares, old, [0, 1], 2));
    }

    // ---- all that flips, in both directions ----

    // All test images in one picture.
    get sprite() {
      const { model } = this, { side, count, pixels } = model, across = Math.ceil(Math.sqrt(count));
      if (model.sprite) return model.sprite;
      const canvas = html("canvas", { width: across * side, height: across * side }), context = canvas.getContext("2d");
      const tile = context.createImageData(side, side);
      for (let image = 0; image < count; image++) {
        for (let k = 0; k < side ** 2; k++) {
          const ink = pixels[image * side ** 2 + k];
          tile.data.set([ink, ink, ink, 255], 4 * k);
        }
        context.putImageData(tile, (image % across) * side, Math.floor(image / across) * side);
      }
      model.sprite = { url: canvas.toDataURL(), across };
      return model.sprite;
    }

    showGallery() {
      const { url, across } = this.sprite, { lost, gained } = this.result;
      this.gallery.style.setProperty("--sprite", `url(${url})`);
      this.gallery.style.setProperty("--across", across);
      const directions = { "Right at fp32, wrong now": lost, "Wrong at fp32, right now": gained };
      this.gallery.replaceChildren(...Object.entries(directions).map(([title, own]) => this.flips(title, own)));
    }

    // The images of one direction by group; one is reached by Tab, the others from there by the arrow keys.
    flips(title, images) {
      const { groupOf, order, groups } = this.model;
      const rows = order.map((group) => [groups[group], images.filter((image) => groupOf[image] === group)]);
      const walk = (event) => {
        const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!steps) return;
        event.preventDefault();
        const all = [...event.currentTarget.querySelectorAll(".live-tile")];
        const place = all.indexOf(document.activeElement);
        all[(place + steps + all.length) % all.length]?.focus();
      };
      const made = html("div", { role: "group", "aria-label": title, onkeydown: walk },
        html("p", {}, `${title}: ${images.length || "none"}`),
        rows.filter(([, own]) => own.length).map(([{ name, color }, own]) => html("div", { class: "live-group" },
          html("span", { style: `--group: ${color}` }, `${name} (${own.length})`),
          html("div", {}, own.map((image) => this.tile(image))))));
      made.querySelector(".live-tile")?.setAttribute("tabindex", 0);
      return made;
    }

    tile(image) {
      const { classes, labels } = this.model, { expected, predicted } = this.result, { across } = this.sprite;
      const then = classes[expected[image]], now = classes[predicted[image]];
      const words = `test image ${image}, a ${classes[labels[image]]}: fp32 ${then}, now ${now}`;
      const press = () => {
        this.take(image);
        this.follow.scrollIntoView({ block: "nearest" });
      };
      return html("button", {
        type: "button", class: "live-tile", title: words, "aria-label": words, tabindex: -1, onclick: press,
        style: `--x: ${image % across}; --y: ${Math.floor(image / across)}`,
      });
    }
  }

  document.addEventListener("DOMContentLoaded", async () => {
    const models = document.querySelector(".playground-models"), pictures = document.querySelector(".bit-width");
    if (!models?.dataset.files || !pictures) return;
    const files = Object.fromEntries(models.dataset.files.split(" ").map((file) => [file.split(".js")[0], file]));
    const host = html("div", { class: "live-host" });
    pictures.before(host);
    try {
      await new Playground(host, files, pictures).start();
      pictures.classList.add("live-stands-in");
    } catch (error) {
      // The pictures stay.
      host.remove();
      console.warn(error);
    }
  });
})();
