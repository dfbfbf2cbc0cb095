// The playground without a kernel: choices, drawings from numbers, and one digit to follow.
// Without this file, or where a browser cannot compute, the pictures of the page stay.
(() => {
  const home = new URL(".", document.currentScript.src);
  const SVG = "http://www.w3.org/2000/svg";
  const MOST_KEPT = 60;
  const FLOATING = ["fp32", "fp16"];
  const PRECISIONS = [...FLOATING, ...[8, 7, 6, 5, 4, 3, 2, 1].map((bits) => `int${bits}`)];
  const NEAR = 0.01;

  // Elements out of a name, attributes and children; what is null is left out.
  const make = (space) => (name, attributes = {}, ...children) => {
    const made = space ? document.createElementNS(space, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
      else if (value === true) made.setAttribute(key, "");
      else if (value !== null && value !== false && value !== undefined) made.setAttribute(key, value);
    }
    made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
    return made;
  };
  const html = make(null), svg = make(SVG);

  // A number as Python prints it: ties to the even digit, exponents of two digits.
  const number = (value, digits = 2, scientific = false) => {
    if (!Number.isFinite(value)) return "not defined";
    if (scientific) return value.toExponential(digits).replace(/([+-])(\d)$/, "$10$2");
    const shifted = value * 10 ** digits, tie = Number.isInteger(value * 2 ** (digits + 1)) && shifted % 1;
    const text = tie ? (2 * Math.round(shifted / 2) / 10 ** digits).toFixed(digits) : value.toFixed(digits);
    return text.replace(/^-(0\.?0*)$/, "$1");
  };
  const percent = (share) => `${number(100 * share, 1)} %`;

  // The marks of the groups, as paths of radius one, by matplotlib's names.
  const corners = (count, turn, radii = [1]) => `M${Array.from({ length: count * radii.length }, (_, k) => {
    const angle = (2 * Math.PI * k) / (count * radii.length) + turn, radius = radii[k % radii.length];
    return `${(radius * Math.cos(angle)).toFixed(3)},${(radius * Math.sin(angle)).toFixed(3)}`;
  }).join("L")}Z`;
  const PLUS = [[-0.35, -1], [0.35, -1], [0.35, -0.35], [1, -0.35], [1, 0.35], [0.35, 0.35], [0.35, 1], [-0.35, 1],
    [-0.35, 0.35], [-1, 0.35], [-1, -0.35], [-0.35, -0.35]];
  const turned = ([x, y]) => [0.707 * (x - y), 0.707 * (x + y)];
  const up = -Math.PI / 2;
  const MARKS = {
    o: "M-.9,0a.9,.9 0 1,0 1.8,0a.9,.9 0 1,0 -1.8,0", s: corners(4, Math.PI / 4, [1.2]), D: corners(4, 0, [1.1]),
    "^": corners(3, up, [1.15]), v: corners(3, -up, [1.15]), P: `M${PLUS.join("L")}Z`,
    X: `M${PLUS.map(turned).join("L")}Z`, "*": corners(5, up, [1.3, 0.55]), h: corners(6, up), p: corners(5, up),
  };

  // Where a value lies on an axis, and the ticks that it has.
  const axis = ([low, high], log, start, stop) => {
    const [from, to] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
    const at = (value) => start + (((log ? Math.log10(value) : value) - from) / (to - from || 1)) * (stop - start);
    const ticks = [];
    if (log) {
      const step = Math.ceil((to - from) / 4), fine = to - from < 1.5 ? [1, 2, 5] : [1];
      for (let power = Math.floor(from); power <= to; power++) {
        if (power % step === 0) ticks.push(...fine.map((digit) => digit * 10 ** power));
      }
    } else {
      const rough = (to - from) / 4, unit = 10 ** Math.floor(Math.log10(rough));
      const step = unit * ([1, 2, 5, 10].find((digit) => digit * unit >= rough) ?? 10);
      for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
    }
    return { at, ticks: ticks.filter((value) => value >= low * (log ? 0.999 : 1) && value <= high * 1.001) };
  };
  const tick = (value) => (value && (Math.abs(value) < 0.001 || Math.abs(value) >= 10000)
    ? value.toExponential(0) : String(Number(value.toPrecision(6))));

  class Playground {
    constructor(host, files, pictures) {
      this.pictures = pictures;
      this.files = files;
      this.models = {};
      this.kept = new Map();
      const chosen = pictures.querySelector("input:checked")?.value;
      this.first = { experiment: Object.keys(files)[0], precision: PRECISIONS.includes(chosen) ? chosen : "int4" };
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
      this.build();
      addEventListener("hashchange", () => { this.read(); this.update(); });
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
      model.reference = await model.run({ precision: "fp32", bits: null });
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
        .map((name) => (name === "scheme" || name === "grid" ? "" : `${name.replaceAll("_", " ")} `) + this.state[name]);
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
        said.set("drawn", Array.from(state.drawn, (ink) => Math.round((ink * 16) / 255).toString(17)).join("") + state.meant);
      }
      const text = said.toString();
      history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
    }

    // ---- what stays ----

    build() {
      const part = (name, title, ...children) => {
        const id = `live-${name}`;
        return html("section", { class: id, "aria-labelledby": id }, html("p", { class: "live-title", id }, title), children);
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
          button("Start again", () => { history.replaceState(null, "", "#"); this.read(); this.update(); }), this.copied),
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
      this.result = this.kept.get(key);
      this.showSummary(named);
      this.showChain();
      this.showTable();
      this.showGallery();
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
        + `Of ${this.model.count} test images ${lost.length} are no longer right, and ${gained.length} are only now.`;
    }

    // ---- the weights: bits of each layer, and the grid of one ----

    buildLayers() {
      const heads = ["layer", "bits", "", "zeros", ""].map((text) => html("span", {}, text));
      this.layersArea.append(html("div", { class: "live-layer live-head", "aria-hidden": "true" }, heads));
      this.sliders = this.model.layers.map(({ name }, k) => {
        const choose = html("button", { type: "button", onclick: () => { this.state.layer = k; this.update(); } }, name);
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
      const k = this.state.layer, { name } = this.model.layers[k], { weight, values, bits, grids, zeros } = layers[k];
      const [width, height, bottom, bins] = [420, 210, 178, 81];
      let [low, high] = weight.reduce(([a, b], own) => [Math.min(a, own), Math.max(b, own)], [Infinity, -Infinity]);
      // Room to stretch the grid beyond the weights.
      const room = 0.3 * (high - low || 1);
      [low, high] = [low - room, high + room];
      const { at, ticks } = axis([low, high], false, 12, width - 12);
      const counted = (list) => {
        const counts = new Float64Array(bins);
        for (const own of list) counts[Math.max(0, Math.min(bins - 1, Math.floor(((own - low) / (high - low)) * bins)))] += 1;
        return counts;
      };
      const outline = (counts) => {
        const most = Math.max(...counts), step = (width - 24) / bins;
        const points = Array.from(counts, (count, bin) => {
          const y = (bottom - 150 * (count / most)).toFixed(1);
          return `${(12 + bin * step).toFixed(1)},${y}L${(12 + (bin + 1) * step).toFixed(1)},${y}`;
        });
        return `M12,${bottom}L${points.join("L")}L${width - 12},${bottom}`;
      };
      const share = percent(zeros / weight.length), few = bits !== null && grids.length === 1 && bits < 6;
      const text = `Weights of ${name}: ${bits === null ? this.state.precision : `${bits} bits`}, ${share} are zero`;
      const drawing = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": text },
        few ? this.columns(values, grids[0], 2 ** bits, at, bottom)
          : svg("path", { class: "live-filled", d: outline(counted(values)) }),
        svg("path", { class: "live-outline", d: outline(counted(weight)) }),
        svg("line", { class: "live-axis", x1: 12, x2: width - 12, y1: bottom, y2: bottom }),
        ticks.map((value) => svg("text", { x: at(value), y: height - 12, "text-anchor": "middle" }, tick(value))),
        svg("text", { x: width - 14, y: 16, "text-anchor": "end" }, `${share} are zero`),
      );
      const ends = bits === null ? null : this.state.layers[k]?.clip ?? this.reached(grids);
      if (ends) drawing.append(...[0, 1].map((end) => this.handle(drawing, k, ends, end, at, [low, high], bottom)));
      const clipped = this.state.layers[k]?.clip;
      const focused = this.weightsArea.querySelector(":focus")?.dataset.end;
      this.weightsArea.replaceChildren(
        html("p", {}, html("strong", {}, name), ends
          ? ` (outline: fp32${few ? "; red: zeros" : ""}). Drag the ends of the grid, or move them with the arrow keys${clipped ? "" :
            grids.length > 1 ? "; each channel has its own, and these are the outermost" : ""}.`
          : " has no grid at this precision: give it some bits above."),
        drawing,
        html("p", {}, clipped ? `One grid from ${number(ends[0], 3)} to ${number(ends[1], 3)}, whatever the scheme is. ` : "",
          clipped ? html("button", { type: "button", onclick: () => this.own(k, { clip: undefined }) }, "The scheme's ends") : ""),
      );
      if (focused) this.weightsArea.querySelector(`[data-end="${focused}"]`)?.focus();
    }

    // A bar for each point of a grid, as high as the weights that lie on it are many.
    columns(values, { zero, scale, offset, low }, count, at, bottom) {
      const points = Array.from({ length: count }, (_, code) => (code + low - zero) * scale + (offset ?? 0));
      const counts = new Float64Array(count);
      for (const own of values) counts[Math.round((own - points[0]) / scale)] += 1;
      const most = Math.max(...counts), wide = Math.max(1.5, Math.min(9, 0.7 * (at(points[1]) - at(points[0]))));
      return points.map((value, k) => {
        const size = 150 * (counts[k] / most), kind = Math.abs(value) < scale / 1000 ? "live-zeros" : "live-filled";
        return [svg("line", { class: "live-tick", x1: at(value), x2: at(value), y1: bottom, y2: bottom + 6 }),
          svg("rect", { class: kind, x: at(value) - wide / 2, width: wide, y: bottom - size, height: size },
            svg("title", {}, `${number(value, 3)}: ${percent(counts[k] / values.length)} of the weights`))];
      });
    }

    // The outermost points of the grids of a layer.
    reached(grids) {
      const point = ({ zero, scale, offset }, code) => (code - zero) * scale + (offset ?? 0);
      return [Math.min(...grids.map((own) => point(own, own.low))), Math.max(...grids.map((own) => point(own, own.high)))];
    }

    // One end of a grid, to be dragged.
    handle(drawing, k, ends, end, at, [low, high], bottom) {
      const x = Math.max(3, Math.min(417, at(ends[end])));
      const move = (value) => {
        const clip = [...ends], gap = (high - low) / 200;
        clip[end] = end ? Math.min(high, Math.max(value, clip[0] + gap)) : Math.max(low, Math.min(value, clip[1] - gap));
        this.own(k, { clip: clip.map((own) => Number(own.toPrecision(4))) });
      };
      const drag = (event) => {
        const box = drawing.getBoundingClientRect(), place = ((event.clientX - box.left) / box.width) * 420;
        move(low + ((place - 12) / 396) * (high - low));
      };
      return svg("g", {
        class: "live-handle", tabindex: 0, role: "slider", "data-end": end,
        "aria-label": end ? "largest value of the grid" : "smallest value of the grid", "aria-valuemin": number(low, 3),
        "aria-valuemax": number(high, 3), "aria-valuenow": number(ends[end], 3),
        onkeydown: (event) => {
          const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
          if (steps === undefined) return;
          event.preventDefault();
          move(ends[end] + steps * NEAR * (high - low));
        },
        onpointerdown: (event) => {
          event.preventDefault();
          event.currentTarget.focus();
          const page = new AbortController(), { signal } = page;
          // Each step draws anew, so the page listens and not the handle.
          addEventListener("pointermove", (moved) => this.dragged(moved, end), { signal });
          addEventListener("pointerup", () => page.abort(), { signal });
          addEventListener("pointercancel", () => page.abort(), { signal });
        },
        "data-drag": true, ondragged: ({ detail }) => drag(detail),
      }, svg("line", { x1: x, x2: x, y1: 22, y2: bottom }),
      svg("path", { d: `M${x},${bottom}l-7,12h14Z` }), svg("rect", { x: x - 12, y: 22, width: 24, height: bottom, class: "live-grip" }));
    }

    // The handle of this end as it is drawn by now.
    dragged(event, end) {
      const own = this.weightsArea.querySelector(`[data-end="${end}"]`);
      own?.dispatchEvent(new CustomEvent("dragged", { detail: event }));
    }

    // ---- the chain: a panel for each measure, a row for each group ----

    showChain() {
      const { model, result } = this, order = model.order, [width, left, top, step] = [290, 34, 24, 17];
      const bottom = top + step * order.length + 2;
      this.frames ??= {};
      const panels = model.measures.filter(({ key }) => key in result.groups).map((measure) => {
        const { key, log, limits, digits, scientific } = measure;
        const own = result.groups[key], before = model.before?.[key] ?? this.before()[key];
        const shown = ({ value }) => Number.isFinite(value) && (value > 0 || !log);
        const values = [...own, ...(measure.from_reference ? [] : before)].filter(shown).map(({ value }) => value);
        const frame = (this.frames[key] ??= [...(limits ?? measure.frame ?? [values[0] ?? 1, values[0] ?? 1])]);
        // Axes only widen, so that what moves has moved in the model.
        [frame[0], frame[1]] = [Math.min(frame[0], ...values), Math.max(frame[1], ...values)];
        const wide = log ? [frame[0] / 1.2, frame[1] * 1.2] : [frame[0] - 0.03 * (frame[1] - frame[0]), frame[1] + 0.03 * (frame[1] - frame[0])];
        const { at, ticks } = axis(wide, log, left, width - 8);
        const inside = (value) => at(Math.max(wide[0], Math.min(wide[1], value)));
        const band = key === "accuracy" && own.some(shown) ? own.filter(shown).map(({ value }) => at(value)) : null;
        const rows = order.map((group, row) => {
          const { color, marker, name } = model.groups[group], y = top + step * row + step / 2;
          const { value, interval: [from, to] } = own[group], then = before[group].value, place = [];
          const beside = !measure.from_reference && shown(before[group]);
          if (shown(own[group])) {
            if (Number.isFinite(from + to)) place.push(svg("line", { x1: inside(from), x2: inside(to), y1: y, y2: y }));
            if (beside) place.push(svg("line", { class: "live-way", x1: at(then), x2: at(value), y1: y, y2: y }));
          }
          const mark = (x, kind) => svg("path", { class: kind, d: MARKS[marker], transform: `translate(${x.toFixed(1)},${y}) scale(4.6)` });
          if (beside) place.push(mark(at(then), "live-hollow"));
          if (shown(own[group])) place.push(mark(at(value), "live-mark"));
          else if (Number.isNaN(value)) place.push(svg("text", { x: left + 4, y: y + 4 }, "not defined"));
          const numbers = `${name}: ${number(value, digits, scientific)}${beside ? ` (fp32 ${number(then, digits, scientific)})` : ""}`;
          return svg("g", { class: "live-row", "data-group": group, style: `--group: ${color}`, onpointerenter: () => this.point(group) },
            svg("rect", { class: "live-hover", x: 0, width, y: y - step / 2, height: step }), svg("title", {}, numbers),
            svg("text", { x: left - 8, y: y + 4, "text-anchor": "end" }, name), place);
        });
        const spoken = order.map((group) => `${model.groups[group].name} ${number(own[group].value, digits, scientific)}`).join(", ");
        return svg("svg", { viewBox: `0 0 ${width} ${bottom + 20}`, role: "img", "aria-label": `${measure.label}: ${spoken}` },
          band && svg("rect", { class: "live-band", x: Math.min(...band), width: Math.max(...band) - Math.min(...band), y: top, height: bottom - top }),
          ticks.map((value) => [svg("line", { class: "live-rule", x1: at(value), x2: at(value), y1: top, y2: bottom }),
            svg("text", { x: at(value), y: bottom + 15, "text-anchor": "middle" }, tick(value))]),
          svg("text", { class: "live-name", x: left, y: 14 }, measure.title + (band ? " (band: FVO)" : "")), rows,
          own.some(shown) ? null : svg("text", { x: (left + width) / 2, y: (top + bottom) / 2, "text-anchor": "middle" }, "no value above zero"));
      });
      this.chain.replaceChildren(...panels);
      this.point(this.pointed ?? null);
    }

    // What the reference measures of itself.
    before() {
      const { model } = this, layers = model.quantized({ precision: "fp32", bits: null });
      model.before = quantskew.measured(model, layers, model.reference, model.reference).groups;
      return model.before;
    }

    // Read a group aloud, in every panel at once.
    point(group) {
      this.pointed = group;
      const { model, result } = this;
      for (const row of this.chain.querySelectorAll(".live-row")) row.classList.toggle("pointed", Number(row.dataset.group) === group);
      if (group === null) {
        this.readout.textContent = "Hollow markers: fp32. Lines: 95 % intervals. Point at a row, or use the arrow keys, to read its numbers.";
        return;
      }
      const said = model.measures.filter(({ key }) => key in result.groups).map(({ key, title, digits, scientific }) => {
        const { value, interval } = result.groups[key][group], text = (own) => number(own, digits, scientific);
        return `${title} ${text(value)}${interval.every(Number.isFinite) ? ` [${interval.map(text).join(", ")}]` : ""}`;
      });
      const { name, images } = model.groups[group];
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
      const { model, result } = this, known = model.measures.filter(({ key }) => key in result.groups);
      const head = ["group", ...known.map(({ title }) => title)].map((text) => html("th", { scope: "col" }, text));
      const rows = model.order.map((group) => html("tr", {}, html("th", { scope: "row" }, model.groups[group].name),
        known.map(({ key, digits, scientific }) => html("td", {}, number(result.groups[key][group].value, digits, scientific)))));
      this.table.replaceChildren(html("table", {}, html("thead", {}, html("tr", {}, head)), html("tbody", {}, rows)));
    }

    // ---- one digit: its picture, what is computed of it, and where it ends ----

    buildDigit() {
      const button = (text, press, label) => html("button", { type: "button", onclick: press, "aria-label": label ?? null }, text);
      const to = (image) => { Object.assign(this.state, { image: (image + this.model.count) % this.model.count, drawn: null }); this.update(); };
      this.which = html("input", {
        type: "number", min: 0, max: this.model.count - 1, id: "live-image", onchange: ({ target }) => to(Math.trunc(Number(target.value)) || 0),
      });
      this.meant = html("select", { id: "live-meant", onchange: ({ target }) => { this.state.meant = target.selectedIndex; this.update(); } },
        this.model.classes.map((name) => html("option", {}, name)));
      this.meaning = html("span", {}, html("label", { for: "live-meant" }, "meant as a "), this.meant);
      this.bits = html("input", {
        type: "range", id: "live-bits", min: 0, max: PRECISIONS.length - 1, step: 1,
        oninput: ({ target }) => { this.state.precision = PRECISIONS[target.value]; this.update(); },
      });
      this.said = html("output", { for: "live-bits" });
      this.sheet = svg("svg", {
        viewBox: "0 0 8 8", class: "live-sheet", tabindex: 0, role: "application",
        "aria-label": "The image, to draw on: arrow keys move, space sets or wipes a pixel", "aria-describedby": "live-cell",
        onpointerdown: (event) => this.ink(event, true), onpointermove: (event) => this.ink(event, false),
        onkeydown: (event) => this.type(event),
      });
      this.cell = { x: 0, y: 0 };
      this.where = html("span", { id: "live-cell", class: "live-hidden", "aria-live": "polite" });
      this.verdict = html("p", { role: "status" });
      this.bars = html("div", { class: "live-bars" });
      this.follow.append(
        html("div", { class: "live-picture" }, this.sheet, this.where,
          html("p", {}, button("‹", () => to(this.state.image - 1), "previous image"), html("label", { for: "live-image" }, "test image "),
            this.which, button("›", () => to(this.state.image + 1), "next image")),
          html("p", {}, button("Empty sheet", () => this.draw(new Uint8Array(this.model.side ** 2))), this.meaning)),
        html("div", { class: "live-story" },
          html("p", {}, html("label", { for: "live-bits" }, "precision "), this.bits, this.said), this.verdict, this.bars));
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
      const box = this.sheet.getBoundingClientRect();
      const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((own) => Math.floor(8 * own));
      if (x < 0 || y < 0 || x > 7 || y > 7 || (!first && x === this.cell.x && y === this.cell.y)) return;
      this.cell = { x, y };
      // A line has the colour that its first pixel got.
      if (first) this.colour = this.pixels[8 * y + x] > 127 ? 0 : 255;
      this.set(this.colour);
    }

    set(colour) {
      const pixels = this.pixels.slice();
      pixels[8 * this.cell.y + this.cell.x] = colour;
      this.draw(pixels);
    }

    type(event) {
      const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], " ": [0, 0], Enter: [0, 0] }[event.key] ?? [];
      if (x === undefined) return;
      event.preventDefault();
      const wrap = (own) => (own + 8) % 8, at = (this.cell = { x: wrap(this.cell.x + x), y: wrap(this.cell.y + y) });
      if (!x && !y) this.set(this.pixels[8 * at.y + at.x] > 127 ? 0 : 255);
      else this.showSheet();
      this.where.textContent = `row ${at.y + 1}, column ${at.x + 1}: ${percent(this.pixels[8 * at.y + at.x] / 255)} ink`;
    }

    showSheet() {
      const { x, y } = this.cell;
      this.sheet.replaceChildren(
        ...Array.from(this.pixels, (ink, k) => svg("rect", { x: k % 8, y: Math.floor(k / 8), width: 1.02, height: 1.02, fill: `rgb(${ink} ${ink} ${ink})` })),
        svg("rect", { class: "live-cursor", x: x + 0.05, y: y + 0.05, width: 0.9, height: 0.9 }));
    }

    showDigit() {
      const { model, state, result } = this, { drawn, image } = state;
      this.showSheet();
      this.which.value = image;
      this.meaning.hidden = !drawn;
      this.meant.selectedIndex = state.meant;
      this.bits.value = PRECISIONS.indexOf(state.precision);
      this.bits.setAttribute("aria-valuetext", state.precision);
      this.said.textContent = ` ${state.precision}`;
      const label = drawn ? state.meant : model.labels[image];
      // One image is soon computed, and need not wait for all.
      const [before, now] = [{ precision: "fp32", bits: null }, this.quantizer].map((own) => Array.from(model.of(this.pixels, own)));
      const [guess, then] = [now, before].map(quantskew.argmax), [shares, old] = [now, before].map(quantskew.softmax);
      const subject = drawn ? `Your drawing, meant as a ${model.classes[label]}` : `Test image ${image}, a ${model.classes[label]}`;
      const told = guess === then ? `at fp32 and at ${state.precision} the model says ${model.classes[guess]}`
        : `at fp32 the model says ${model.classes[then]}, at ${state.precision} it says ${model.classes[guess]}`;
      const flip = then === label && guess !== label ? " It flips: right before, wrong now."
        : then !== label && guess === label ? " It flips: wrong before, right now." : "";
      this.verdict.textContent = `${subject}: ${told}. Distance to the boundary ${number(old[label])} at fp32, ${number(shares[label])} now.${flip}`;
      const reach = Math.max(1, ...now.map(Math.abs), ...before.map(Math.abs));
      this.bars.replaceChildren(
        this.barsOf("logits", now, before, [-reach, reach], label, 1), this.barsOf("softmax", shares, old, [0, 1], label, 2));
    }

    // A bar for each class; an outline is the reference, and the line at one half is the boundary's.
    barsOf(title, now, before, range, label, digits) {
      const [width, left, top, step] = [250, 26, 22, 16], height = top + step * now.length;
      const { at, ticks } = axis(range, false, left, width - 8), zero = at(0);
      const bar = (value, y, kind, size) => svg("rect", { class: kind, x: Math.min(zero, at(value)), width: Math.abs(at(value) - zero), y, height: size });
      const spoken = now.map((value, k) => `${this.model.classes[k]} ${number(value, digits)} (fp32 ${number(before[k], digits)})`).join(", ");
      return svg("svg", { viewBox: `0 0 ${width} ${height + 20}`, role: "img", "aria-label": `${title}: ${spoken}` },
        svg("text", { class: "live-name", x: left, y: 14 }, title + (range[0] < 0 ? "" : " (dashed: one half)")),
        ticks.map((value) => [svg("line", { class: "live-rule", x1: at(value), x2: at(value), y1: top, y2: height }),
          svg("text", { x: at(value), y: height + 14, "text-anchor": "middle" }, tick(value))]),
        now.map((value, k) => svg("g", { class: k === label ? "live-own" : "" }, svg("title", {}, `${this.model.classes[k]}: ${number(value, digits)} (fp32 ${number(before[k], digits)})`),
          svg("text", { x: left - 8, y: top + step * k + 12, "text-anchor": "end" }, this.model.classes[k]),
          bar(value, top + step * k + 4, "live-filled", step - 8), bar(before[k], top + step * k + 2, "live-outline", step - 4))),
        range[0] < 0 ? svg("line", { class: "live-axis", x1: zero, x2: zero, y1: top, y2: height })
          : svg("line", { class: "live-half", x1: at(0.5), x2: at(0.5), y1: top, y2: height }));
    }

    // ---- all that flips, in both directions ----

    // All test images in one picture.
    get sprite() {
      const { model } = this, { side, count } = model, across = Math.ceil(Math.sqrt(count));
      if (model.sprite) return model.sprite;
      const canvas = html("canvas", { width: across * side, height: across * side }), context = canvas.getContext("2d");
      const tile = context.createImageData(side, side);
      for (let image = 0; image < count; image++) {
        for (let k = 0; k < side ** 2; k++) tile.data.set([...new Array(3).fill(model.pixels[image * side ** 2 + k]), 255], 4 * k);
        context.putImageData(tile, (image % across) * side, Math.floor(image / across) * side);
      }
      model.sprite = { url: canvas.toDataURL(), across };
      return model.sprite;
    }

    showGallery() {
      const { model, result, sprite, state } = this, { classes, labels, groupOf, order } = model;
      const tile = (image, place) => {
        const words = `test image ${image}, a ${classes[labels[image]]}: fp32 ${classes[result.expected[image]]}, now ${classes[result.predicted[image]]}`;
        const [x, y] = [image % sprite.across, Math.floor(image / sprite.across)];
        return html("button", {
          type: "button", class: "live-tile", style: `--x: ${x}; --y: ${y}`, title: words, "aria-label": words, tabindex: place ? -1 : 0,
          onclick: () => { Object.assign(state, { image, drawn: null }); this.update(); this.follow.scrollIntoView({ block: "nearest" }); },
        });
      };
      const walk = (event) => {
        const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (!steps) return;
        event.preventDefault();
        const all = [...event.currentTarget.querySelectorAll(".live-tile")], place = all.indexOf(document.activeElement);
        all[(place + steps + all.length) % all.length]?.focus();
      };
      const side = (title, images) => {
        let place = 0;
        const rows = order.map((group) => [group, images.filter((image) => groupOf[image] === group)]).filter(([, own]) => own.length);
        return html("div", { role: "group", "aria-label": title, onkeydown: walk }, html("p", {}, `${title}: ${images.length || "none"}`),
          rows.map(([group, own]) => html("div", { class: "live-group" },
            html("span", { style: `--group: ${model.groups[group].color}` }, `${model.groups[group].name} (${own.length})`),
            html("div", {}, own.map((image) => tile(image, place++))))));
      };
      this.gallery.style.setProperty("--sprite", `url(${sprite.url})`);
      this.gallery.style.setProperty("--across", sprite.across);
      this.gallery.replaceChildren(side("Right at fp32, wrong now", result.lost),
        side("Wrong at fp32, right now", result.gained));
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
