// Drawings from numbers, as SVG: a histogram on its grid, a panel of the chain, bars of the classes.
// Colours are in playground.css; the looks of the groups come with the model, from figures/style.py.
globalThis.quantskewDrawing = (() => {
  const SVG = "http://www.w3.org/2000/svg";

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
    const text = tie ? ((2 * Math.round(shifted / 2)) / 10 ** digits).toFixed(digits) : value.toFixed(digits);
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
  const axis = ([low, high], log, start, stop, decades = 1.5) => {
    const [from, to] = log ? [Math.log10(low), Math.log10(high)] : [low, high];
    const at = (value) => start + (((log ? Math.log10(value) : value) - from) / (to - from || 1)) * (stop - start);
    const ticks = [];
    if (log) {
      const step = Math.ceil((to - from) / 4), fine = to - from < decades ? [1, 2, 5] : [1];
      for (let power = Math.floor(from); power <= to; power++) {
        if (power % step === 0) ticks.push(...fine.map((digit) => digit * 10 ** power));
      }
    } else {
      const rough = (to - from) / 4, unit = 10 ** Math.floor(Math.log10(rough));
      const step = unit * [1, 2, 5, 10].find((digit) => digit * unit >= 0.999 * rough);
      for (let k = Math.ceil(low / step); k * step <= high; k++) ticks.push(k * step);
    }
    return { at, ticks: ticks.filter((value) => value >= low && value <= high) };
  };
  const label = (value) => (value && (Math.abs(value) < 0.001 || Math.abs(value) >= 10000)
    ? value.toExponential(0) : String(Number(value.toPrecision(6))));
  const line = (kind, x1, x2, y1, y2) => svg("line", { class: kind, x1, x2, y1, y2 });
  const words = (text, x, y, anchor, kind) => svg("text", { x, y, "text-anchor": anchor, class: kind }, text);
  const ruled = ({ at, ticks }, top, bottom) => ticks.map((value) => [
    line("live-rule", at(value), at(value), top, bottom), words(label(value), at(value), bottom + 15, "middle"),
  ]);

  // ---- the weights of a layer, before and after ----

  const WIDE = 420, EDGE = 12, FLOOR = 178, TALL = 150, BINS = 81, HANDLE_TOP = 22;

  const outline = (values, [low, high]) => {
    const counts = new Float64Array(BINS), step = (WIDE - 2 * EDGE) / BINS;
    for (const value of values) {
      const bin = Math.floor(((value - low) / (high - low)) * BINS);
      counts[Math.min(BINS - 1, Math.max(0, bin))]++;
    }
    const most = Math.max(...counts);
    const steps = Array.from(counts, (count, bin) => {
      const [x, y] = [EDGE + bin * step, FLOOR - (TALL * count) / most].map((own) => own.toFixed(1));
      return `${x},${y}L${(Number(x) + step).toFixed(1)},${y}`;
    });
    return `M${EDGE},${FLOOR}L${steps.join("L")}L${WIDE - EDGE},${FLOOR}`;
  };

  // A bar for each point of a grid, as high as the weights that lie on it are many.
  const columns = (values, { zero, scale, offset, low, high }, at) => {
    const points = Array.from({ length: high - low + 1 }, (_, code) => (code + low - zero) * scale + (offset ?? 0));
    const counts = new Float64Array(points.length);
    for (const value of values) counts[Math.round((value - points[0]) / scale)]++;
    const most = Math.max(...counts), width = Math.max(1.5, Math.min(9, 0.7 * (at(points[1]) - at(points[0]))));
    return points.map((value, k) => {
      const height = (TALL * counts[k]) / most, kind = Math.abs(value) < scale / 1000 ? "live-zeros" : "live-filled";
      const title = `${number(value, 3)}: ${percent(counts[k] / values.length)} of the weights`;
      return [line("live-tick", at(value), at(value), FLOOR, FLOOR + 6),
        svg("rect", { class: kind, x: at(value) - width / 2, width, y: FLOOR - height, height },
          svg("title", {}, title))];
    });
  };

  // With room on both sides, to stretch a grid beyond the weights.
  const range = (weight) => {
    const [low, high] = weight.reduce(([a, b], own) => [Math.min(a, own), Math.max(b, own)], [Infinity, -Infinity]);
    const room = 0.3 * (high - low || 1);
    return [low - room, high + room];
  };

  // Whether the points of a grid are so few that each has a bar.
  const few = ({ grids, bits }) => bits !== null && grids.length === 1 && bits < 6;

  // Of weights before (outline) and after; `title` is for those who do not see it.
  const histogram = (layer, title) => {
    const { weight, values, grids, zeros } = layer;
    const shown = range(weight), own = axis(shown, false, EDGE, WIDE - EDGE);
    return svg("svg", { viewBox: `0 0 ${WIDE} 210`, role: "group", "aria-label": title },
      few(layer) ? columns(values, grids[0], own.at) : svg("path", { class: "live-filled", d: outline(values, shown) }),
      svg("path", { class: "live-outline", d: outline(weight, shown) }),
      line("live-axis", EDGE, WIDE - EDGE, FLOOR, FLOOR),
      own.ticks.map((value) => words(label(value), own.at(value), FLOOR + 20, "middle")),
      words(`${percent(zeros / weight.length)} are zero`, WIDE - EDGE, 16, "end"));
  };

  // The value below a pointer.
  const pointed = (drawing, event, [low, high]) => {
    const box = drawing.getBoundingClientRect(), place = ((event.clientX - box.left) / box.width) * WIDE;
    return low + ((place - EDGE) / (WIDE - 2 * EDGE)) * (high - low);
  };

  // One end of a grid, to be dragged: `act` are what it listens to.
  const handle = (value, shown, title, act) => {
    const x = Math.max(3, Math.min(WIDE - 3, axis(shown, false, EDGE, WIDE - EDGE).at(value)));
    const [least, most, now] = [...shown, value].map((own) => number(own, 3));
    const spoken = { "aria-label": title, "aria-valuemin": least, "aria-valuemax": most, "aria-valuenow": now };
    return svg("g", { class: "live-handle", tabindex: 0, role: "slider", ...spoken, ...act },
      line(null, x, x, HANDLE_TOP, FLOOR), svg("path", { d: `M${x},${FLOOR}l-7,12h14Z` }),
      svg("rect", { class: "live-grip", x: x - 12, y: HANDLE_TOP, width: 24, height: FLOOR }));
  };

  // ---- a measure of every group: filled is now, hollow the reference ----

  const LEFT = 34, TOP = 24, ROW = 17, PANEL = 290;

  // `rows` are groups in their order, with their `look`, what is measured `now` and what was `before`.
  const panel = (measure, rows, frame, point) => {
    const { log, digits, scientific, title } = measure, bottom = TOP + ROW * rows.length + 2;
    const room = 0.03 * (frame[1] - frame[0]);
    const wide = log ? [frame[0] / 1.2, frame[1] * 1.2] : [frame[0] - room, frame[1] + room];
    const own = axis(wide, log, LEFT, PANEL - 8);
    const inside = (value) => own.at(Math.max(wide[0], Math.min(wide[1], value)));
    const there = ({ value }) => Number.isFinite(value) && (value > 0 || !log);
    const said = (value) => number(value, digits, scientific);
    const known = rows.filter(({ now }) => there(now)), places = known.map(({ now }) => own.at(now.value));
    const banded = measure.key === "accuracy" && known.length > 0;
    const drawn = rows.map(({ group, look, now, before }, place) => {
      const y = TOP + ROW * (place + 0.5), [from, to] = now.interval.map(inside), beside = before && there(before);
      const mark = (value, kind) => svg("path", {
        class: kind, d: MARKS[look.marker] ?? MARKS.o, transform: `translate(${own.at(value).toFixed(1)},${y}) scale(4.6)`,
      });
      const title = `${look.name}: ${said(now.value)}${beside ? ` (fp32 ${said(before.value)})` : ""}`;
      return svg("g", {
        class: "live-row", "data-group": group, style: `--group: ${look.color}`, onpointerenter: () => point(group),
      },
      svg("rect", { class: "live-hover", x: 0, width: PANEL, y: y - ROW / 2, height: ROW }), svg("title", {}, title),
      words(look.name, LEFT - 8, y + 4, "end"),
      there(now) && now.interval.every(Number.isFinite) ? line(null, from, to, y, y) : null,
      there(now) && beside ? line("live-way", own.at(before.value), own.at(now.value), y, y) : null,
      beside ? mark(before.value, "live-hollow") : null,
      there(now) ? mark(now.value, "live-mark") : null,
      Number.isNaN(now.value) ? words("not defined", LEFT + 4, y + 4, "start") : null);
    });
    const spoken = rows.map(({ look, now }) => `${look.name} ${said(now.value)}`).join(", ");
    const [start, stop] = [Math.min(...places), Math.max(...places)];
    const described = { role: "img", "aria-label": `${measure.label}: ${spoken}` };
    return svg("svg", { viewBox: `0 0 ${PANEL} ${bottom + 20}`, ...described },
      banded ? svg("rect", { class: "live-band", x: start, width: stop - start, y: TOP, height: bottom - TOP }) : null,
      ruled(own, TOP, bottom), words(title + (banded ? " (band: FVO)" : ""), LEFT, 14, "start", "live-name"), drawn,
      known.length ? null : words("no value above zero", (LEFT + PANEL) / 2, (TOP + bottom) / 2, "middle"));
  };

  // ---- a bar for each class: an outline is the reference ----

  const bars = (title, classes, label, now, before, shown, digits) => {
    const [width, left, top, step] = [250, 26, 22, 16], bottom = top + step * classes.length;
    const own = axis(shown, false, left, width - 8), zero = own.at(0), half = shown[0] === 0;
    const said = classes.map((name, k) => `${name}: ${number(now[k], digits)} (fp32 ${number(before[k], digits)})`);
    const bar = (value, y, kind, height) => {
      const x = own.at(value);
      return svg("rect", { class: kind, x: Math.min(zero, x), width: Math.abs(x - zero), y, height });
    };
    const drawn = classes.map((name, k) => {
      const y = top + step * k;
      return svg("g", { class: k === label ? "live-own" : null }, svg("title", {}, said[k]),
        words(name, left - 8, y + 12, "end"), bar(now[k], y + 4, "live-filled", step - 8),
        bar(before[k], y + 2, "live-outline", step - 4));
    });
    const described = { role: "img", "aria-label": `${title}: ${said.join(", ")}` };
    return svg("svg", { viewBox: `0 0 ${width} ${bottom + 20}`, ...described },
      words(title + (half ? " (dashed: one half)" : ""), left, 14, "start", "live-name"),
      ruled(own, top, bottom), drawn,
      half ? line("live-half", own.at(0.5), own.at(0.5), top, bottom) : line("live-axis", zero, zero, top, bottom));
  };

  return { html, svg, number, percent, axis, tickLabel: label, MARKS, range, few, histogram, pointed, handle, panel, bars };
})();
