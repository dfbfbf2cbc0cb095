// What a page draws from numbers that a chapter lays into it: measures over precisions, against each other and as maps,
// of another training run, of all, of some groups, and forest plots of verdicts. Without this file there are their
// pictures and tables.
(() => {
  const { html, svg, number, axis, tickLabel, MARKS } = quantskewDrawing;
  const WIDE = 340, HIGH = 262, BOX = { left: 46, right: 332, top: 40, bottom: 212 }, SHIFT = 0.2;
  // Of Student's t: so many standard errors reach to either side of a mean of two, three, ... training runs.
  const T = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131];
  const MEAN = "mean", ALL = "all", AGAINST = "against", MAP = "map";
  const known = (value, log) => value !== null && Number.isFinite(value) && (value > 0 || !log);

  // Mean over training runs of each precision and group, with its 95 % interval, or of both coordinates of a point.
  const average = (values) => (values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null);
  const mean = ({ seeds, limits, kind }) => seeds[0].map((row, p) => row.map((_, g) => {
    const of = (k) => seeds.map((seed) => seed[p][g][k]).filter((value) => value !== null);
    if (kind === AGAINST) return [average(of(0)), average(of(1))];
    const values = of(0), n = values.length, middle = average(values);
    const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (n - 1) / n);
    const reach = (T[n - 2] ?? 1.96) * spread, [least, most] = limits ?? [-Infinity, Infinity];
    if (!n) return [null, null, null];
    return n < 2 ? [middle, null, null] : [middle, Math.max(least, middle - reach), Math.min(most, middle + reach)];
  }));

  // What is shown of a panel: one table of values by precision and group, or one a training run.
  const tables = (panel, seed) => (seed === ALL ? panel.seeds
    : [seed === MEAN ? mean(panel) : panel.seeds[panel.runs.indexOf(Number(seed))]]);

  // Over all training runs, so that the axis stands still; as wide as is possible where values fill that.
  const frame = ({ seeds, log, limits }, k = 0) => {
    const values = seeds.flat(2).map((own) => own[k]).filter((value) => known(value, log));
    if (!values.length) return log ? [1, 10] : [0, 1];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    if (log) return [low / 1.3, high * 1.3];
    const whole = limits && high - low >= 0.4 * (limits[1] - limits[0]);
    const [from, to] = whole ? limits : [low, high], room = 0.04 * (to - from) || 0.02;
    return [from - room, to + room];
  };

  const text = (words, x, y, anchor, attributes = {}) => svg("text",
    { x, y, "text-anchor": anchor, "font-size": 12, fill: "currentColor", ...attributes }, words);
  const mark = (look, x, y, size = 4) => svg("path", {
    d: MARKS[look.marker] ?? MARKS.o, transform: `translate(${x.toFixed(1)},${y.toFixed(1)}) scale(${size})`,
    fill: look.color, stroke: "none",
  });

  const titles = (panel, title) => [
    text(title, BOX.left - 40, 14, "start", { "font-weight": 700, "font-size": 13 }),
    text(panel.label + (panel.log && panel.kind !== MAP ? ", log scale" : ""), BOX.left - 40, 31, "start"),
  ];

  const ground = (panel, own, across) => {
    const { left, right, top, bottom } = BOX, ink = { stroke: "currentColor" };
    return [
      own.ticks.map((value) => [
        svg("line", { x1: left, x2: right, y1: own.at(value), y2: own.at(value), ...ink, "stroke-opacity": 0.2 }),
        text(tickLabel(value), left - 5, own.at(value) + 4, "end"),
      ]),
      svg("path", { d: `M${left},${top}V${bottom}H${right}`, fill: "none", ...ink }), across,
    ];
  };

  const below = (panel, x) => {
    const turned = panel.precisions.join("").length > 40, under = BOX.bottom + 17;
    return [
      panel.precisions.map((name, p) => text(name, x(p), under, turned ? "end" : "middle",
        turned ? { transform: `rotate(-25 ${x(p)} ${under})` } : {})),
      text(panel.axis, (BOX.left + BOX.right) / 2, BOX.bottom + (turned ? 48 : 36), "middle"),
    ];
  };

  const written = (panel, [value, low, high]) => {
    const own = (each) => number(each, panel.digits, panel.scientific);
    return own(value) + (low === null || high === null ? "" : ` [${own(low)}, ${own(high)}]`);
  };

  // One group: a line and, of a single table, markers with their intervals.
  const group = (panel, g, look, shown, own, x, crowd) => {
    const inside = (value) => Math.max(BOX.top, Math.min(BOX.bottom, own.at(value)));
    const shift = panel.groups.length > 1 ? SHIFT * ((2 * g) / (panel.groups.length - 1) - 1) : 0;
    const drawn = shown.map((rows) => {
      const points = rows.map((row, p) => [x(p + (crowd ? 0 : shift)), row[g], p]).filter(([, [value]]) => known(value, panel.log));
      const path = points.map(([place, [value]], k) => `${k ? "L" : "M"}${place.toFixed(1)},${own.at(value).toFixed(1)}`);
      return [
        panel.joined ? svg("path", { d: path.join(""), fill: "none", stroke: look.color, "stroke-width": crowd ? 0.9 : 1.5 }) : null,
        crowd && panel.joined ? null : points.map(([place, [value, low, high], p]) => svg("g", {},
          svg("title", {}, `${look.name}, ${panel.precisions[p]}: ${written(panel, [value, low, high])}`),
          low === null || high === null ? null : svg("line", {
            x1: place, x2: place, y1: low > 0 || !panel.log ? inside(low) : BOX.bottom, y2: inside(high), stroke: look.color,
          }),
          mark(look, place, own.at(value)))),
      ];
    });
    return svg("g", { "data-group": look.name }, drawn);
  };

  const said = (panel, seed) => (panel.seeds.length < 2 ? panel.title
    : `${panel.title}, ${seed === MEAN ? `mean of ${panel.seeds.length} runs` : seed === ALL ? `all ${panel.seeds.length} runs` : `seed ${seed}`}`);

  const overPrecisions = (panel, shown, hidden, crowd) => {
    const own = axis(frame(panel), panel.log, BOX.bottom, BOX.top, 2.4), last = panel.precisions.length - 1;
    const x = (place) => BOX.left + 24 + (place / (last || 1)) * (BOX.right - BOX.left - 48);
    return [ground(panel, own, below(panel, x)),
      panel.groups.map((look, g) => (hidden.has(look.name) ? null : group(panel, g, look, shown, own, x, crowd)))];
  };

  // A point a group and precision, its first precision hollow and its last one large where there are several.
  const against = (panel, shown, hidden, crowd) => {
    const { left, right, bottom } = BOX, last = panel.precisions.length - 1;
    const up = axis(frame(panel), panel.log, bottom, BOX.top, 2.4);
    const across = axis(frame({ ...panel, ...panel.across }, 1), panel.across.log, left, right, 2.4);
    const ends = last ? `(hollow: ${panel.precisions[0]}, large: ${panel.precisions[last]})` : "";
    const axes = [across.ticks.map((value) => text(tickLabel(value), across.at(value), bottom + 17, "middle")),
      [panel.across.label + (panel.across.log ? ", log scale" : ""), ends].map((words, row) =>
        text(words, (left + right) / 2, bottom + 33 + 13 * row, "middle"))];
    const own = (look, g) => shown.map((rows) => {
      const points = rows.map((row, p) => [row[g], p]).filter(([[y, x]]) => known(y, panel.log) && known(x, panel.across.log));
      const places = points.map(([[y, x]]) => `${across.at(x).toFixed(1)},${up.at(y).toFixed(1)}`);
      return [last ? svg("path", { d: `M${places.join("L")}`, fill: "none", stroke: look.color, "stroke-width": crowd ? 0.7 : 1.2 }) : null,
        crowd && last ? null : points.map(([[y, x], p]) => {
          const hollow = last && p === 0 ? { fill: "#fff", stroke: look.color, "stroke-width": 0.3 } : {};
          const made = mark(look, across.at(x), up.at(y), last && p && p < last ? 3 : crowd ? 3.5 : 5.5);
          for (const [name, value] of Object.entries(hollow)) made.setAttribute(name, value);
          return svg("g", {}, svg("title", {}, `${look.name}, ${panel.precisions[p]}: ${panel.label} ${written(panel, [y, null, null])}, ${
            panel.across.label} ${tickLabel(Number(x.toPrecision(3)))}`), made);
        })];
    });
    return [ground(panel, up, axes),
      panel.groups.map((look, g) => (hidden.has(look.name) ? null : svg("g", { "data-group": look.name }, own(look, g))))];
  };

  // A cell a group and precision, each column with its own shades; of all training runs their mean.
  const map = (panel, shown, hidden) => {
    const rows = shown.length > 1 ? mean(panel) : shown[0], { right, top, bottom } = BOX;
    const left = Math.min(112, 18 + 7 * Math.max(...panel.groups.map(({ name }) => name.length)));
    const wide = (right - left) / panel.precisions.length, tall = (bottom - top) / panel.groups.length;
    const x = (place) => left + wide * (place + 0.5);
    const most = panel.precisions.map((_, p) => Math.max(...rows[p].map(([value]) => value ?? 0)));
    const cells = panel.groups.map((look, g) => (hidden.has(look.name) ? null : svg("g", { "data-group": look.name, class: "drawn-row" },
      text(look.name, left - 8, top + tall * (g + 0.5) + 4, "end", { "font-size": 11 }),
      panel.precisions.map((name, p) => {
        const [value] = rows[p][g], y = top + tall * g, share = value === null ? 0 : value / (most[p] || 1);
        const words = value === null ? "null" : value < 0.001 ? value.toExponential(1) : String(Number(value.toPrecision(2)));
        return svg("g", {}, svg("title", {}, `${look.name}, ${name}: ${value === null ? "not defined" : written(panel, rows[p][g])}`),
          svg("rect", { x: left + wide * p, y, width: wide - 1, height: tall - 1, fill: "currentColor", "fill-opacity": (0.02 + 0.38 * share).toFixed(3) }),
          text(words, x(p), y + tall / 2 + 4, "middle", { "font-size": 11 }));
      }))));
    return [cells, below(panel, x)];
  };

  const KINDS = { [AGAINST]: against, [MAP]: map };
  const draw = (panel, seed, hidden) => {
    const shown = tables(panel, seed), last = panel.precisions.length - 1, title = said(panel, seed);
    const spoken = panel.groups.map(({ name }, g) => {
      const [value] = shown[0][last][g];
      return `${name} ${value === null ? "not defined" : number(value, panel.digits, panel.scientific)}`;
    });
    const every = `every one of ${panel.seeds.length} runs`;
    const described = seed === ALL && panel.kind !== MAP ? every : `${panel.precisions[last]}: ${spoken.join(", ")}`;
    return svg("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": `${title}, ${panel.label}; ${described}` },
      titles(panel, title), (KINDS[panel.kind] ?? overPrecisions)(panel, shown, hidden, seed === ALL));
  };

  const save = (name, kind, content) => {
    const address = URL.createObjectURL(new Blob([content], { type: kind }));
    html("a", { href: address, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(address), 1000);
  };

  // All that the figure can show, one line a value.
  const csv = (panels) => {
    const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : value ?? "");
    const crossed = panels[0].kind === AGAINST;
    const values = (panel, own) => (crossed ? [own[0], panel.across.label, own[1]] : own);
    const lines = panels.flatMap((panel) => panel.seeds.flatMap((rows, seed) => rows.flatMap((row, p) => row.map((own, g) =>
      [panel.title, panel.label, panel.runs[seed], panel.groups[g].name, panel.precisions[p], ...values(panel, own)]))));
    const head = ["experiment", "measure", "seed", "group", "precision", "value", ...(crossed ? ["against", "at"] : ["low", "high"])];
    return [head, ...lines].map((line) => line.map(quoted).join(",")).join("\n") + "\n";
  };

  // The figure as it is shown, with its legend, on paper.
  const whole = (drawings, panels, across) => {
    const room = 18 * Math.max(...panels.map(({ groups }) => Math.ceil(groups.length / 2))) + 12, tall = HIGH + room;
    const down = Math.ceil(panels.length / across), size = { width: WIDE * across, height: tall * down };
    const parts = drawings.map((drawing, k) => {
      const place = { x: WIDE * (k % across), y: tall * Math.floor(k / across), width: WIDE, height: tall };
      const legend = panels[k].groups.map((look, g) => {
        const [x, y] = [BOX.left + 145 * (g % 2), HIGH + 10 + 18 * Math.floor(g / 2)];
        return [mark(look, x, y - 4), text(`${look.name} (${look.images.toLocaleString("en")})`, x + 10, y, "start")];
      });
      return svg("svg", { ...place, viewBox: `0 0 ${WIDE} ${tall}` }, ...drawing.cloneNode(true).childNodes, legend);
    });
    const paper = svg("svg", { xmlns: "http://www.w3.org/2000/svg", ...size, "font-family": "sans-serif", color: "#000" },
      svg("rect", { ...size, fill: "#fff" }), parts);
    return new XMLSerializer().serializeToString(paper);
  };

  class Drawn {
    constructor(name, panels, picture) {
      Object.assign(this, { name, panels, hidden: new Set() });
      this.titles = [...new Set(panels.map(({ title }) => title))];
      this.seeds = Object.fromEntries(panels.map(({ title, runs }) => [title, runs[0]]));
      this.area = html("div", { class: "drawn-panels", style: `--across: ${this.titles.length}` });
      const alt = picture.querySelector("img")?.alt ?? picture.alt;
      this.host = html("div", { class: "drawn", role: "group", "aria-label": alt }, this.area, this.choices());
      picture.classList.add("drawn-instead");
      picture.before(this.host);
      this.show();
    }

    choices() {
      const own = this.titles.map((title) => {
        const panel = this.panels.find((each) => each.title === title), many = panel.seeds.length;
        const options = [...panel.runs.map((seed) => [seed, seed]), [MEAN, `mean of ${many}`], [ALL, "all at once"]];
        const choice = many < 2 ? null : html("label", {}, "seed ", html("select", {
          "data-title": title, onchange: ({ target }) => document.dispatchEvent(new CustomEvent("quantskew-seed", { detail: [title, target.value] })),
        }, options.map(([value, words]) => html("option", { value }, String(words)))));
        const groups = panel.groups.map((look) => html("button", {
          type: "button", "aria-pressed": "true", "data-name": look.name, title: "hide or show",
          onclick: ({ currentTarget }) => this.hide(look.name, currentTarget),
          onpointerenter: () => this.stress(look.name), onpointerleave: () => this.stress(null),
          onfocus: () => this.stress(look.name), onblur: () => this.stress(null),
        }, svg("svg", { viewBox: "-6 -6 12 12", "aria-hidden": "true" }, svg("g", { "data-group": look.name }, mark(look, 0, 0, 4.5))),
        ` ${look.name} (${look.images.toLocaleString("en")})`));
        return html("div", { class: "drawn-choice", role: "group", "aria-label": `${title}, ${panel.counted}` }, choice, groups);
      });
      const files = [["SVG", () => save(`${this.name}.svg`, "image/svg+xml", whole([...this.area.children], this.panels, this.titles.length))],
        ["CSV", () => save(`${this.name}.csv`, "text/csv", csv(this.panels))]];
      const downloads = files.map(([words, act]) => html("button", {
        type: "button", "aria-label": `download ${words === "SVG" ? "this figure as SVG" : "its numbers, of every seed, as CSV"}`, onclick: act,
      }, `↓ ${words}`));
      document.addEventListener("quantskew-seed", ({ detail: [title, seed] }) => this.choose(title, seed));
      return html("div", { class: "drawn-choices", style: `--across: ${this.titles.length}` }, own,
        html("div", { class: "drawn-files" }, downloads));
    }

    // Every figure of the page goes to the same training run.
    choose(title, seed) {
      const panel = this.panels.find((each) => each.title === title);
      if (!panel || (![MEAN, ALL].includes(seed) && !panel.runs.includes(Number(seed))) || panel.runs.length < 2) return;
      this.seeds[title] = seed;
      for (const select of this.host.querySelectorAll("select")) if (select.dataset.title === title) select.value = seed;
      this.show();
    }

    hide(name, button) {
      const gone = button.getAttribute("aria-pressed") === "true";
      if (gone) this.hidden.add(name); else this.hidden.delete(name);
      for (const each of this.host.querySelectorAll("button[data-name]")) {
        if (each.dataset.name === name) each.setAttribute("aria-pressed", String(!gone));
      }
      this.show();
    }

    stress(name) {
      for (const part of this.area.querySelectorAll("[data-group]")) {
        part.style.opacity = name === null || this.hidden.has(name) || part.dataset.group === name ? "" : "0.15";
      }
    }

    show() {
      this.area.replaceChildren(...this.panels.map((panel) => draw(panel, this.seeds[panel.title], this.hidden)));
    }
  }

  // ---- forest plots: judgements by claim and experiment, on one axis for each unit ----

  const DECIDED = ["holds", "fails", "tie"], ENDS = ["effect", "low", "high", "control_low", "control_high"];
  const HOW = "Dot: effect in its unit, filled where the verdict is decided. Line: its 95 % interval over seeds. Grey: "
    + "the effect with shuffled groups. Right of the upright line it is as claimed.";

  const track = (row, place) => {
    const { verdict } = row, known = ENDS.filter((name) => row[name] !== null);
    const word = html("span", { class: `verdict verdict-${verdict.replaceAll(" ", "-")}` }, verdict);
    if (row.lacks) return html("td", {}, word);
    const bars = [["control_low", "chance"], ["low", "interval"], ["effect", "effect"]].filter(([end]) => known.includes(end));
    const style = [place("zero", 0), ...known.map((name) => place(name, row[name]))].join(";");
    return html("td", { class: DECIDED.includes(verdict) ? "decided" : null },
      html("span", { class: "track", style }, bars.map(([, kind]) => html("i", { class: kind }))), word);
  };

  const forest = (tables) => {
    const titles = Object.keys(tables), parts = Object.values(tables), units = [...new Set(parts[0].map(({ unit }) => unit))];
    const bodies = units.map((unit) => {
      const rows = parts.map((part) => part.filter((row) => row.unit === unit));
      const ends = rows.flat().flatMap((row) => ENDS.map((name) => row[name])).filter((value) => value !== null);
      const { ticks } = axis([Math.min(0, ...ends), Math.max(1e-6, ...ends)], false, 0, 1), step = ticks[1] - ticks[0] || 1;
      const low = Math.floor(Math.min(0, ...ends) / step) * step, high = Math.ceil(Math.max(1e-6, ...ends) / step) * step;
      const place = (name, value) => `--${name}:${(100 * Math.max(0, Math.min(1, (value - low) / (high - low)))).toFixed(1)}%`;
      const named = [low, ...(Math.abs((high + low) / (high - low)) < 0.4 ? [0] : []), high];
      const scale = () => html("td", {}, html("span", { class: "track" },
        named.map((value) => html("i", { style: place("at", value) }, tickLabel(value)))));
      const lines = rows[0].map((own, k) => {
        const of = rows[0].filter(({ claim }) => claim === own.claim), first = of[0] === own;
        return html("tr", {}, first ? html("th", { scope: "row", rowspan: of.length }, own.claim) : null,
          html("td", {}, own.at), rows.map((part) => track(part[k], place)));
      });
      return html("tbody", {}, html("tr", { class: "unit" },
        html("th", { colspan: 2, scope: "rowgroup" }, unit), titles.map(scale)), lines);
    });
    return html("div", { class: "forest" }, html("table", {}, html("caption", {}, HOW),
      html("thead", {}, html("tr", {}, ["claim", "at", ...titles].map((name) => html("th", { scope: "col" }, name)))), bodies));
  };

  addEventListener("DOMContentLoaded", () => {
    for (const script of document.querySelectorAll("script.forest-numbers")) {
      script.before(forest(JSON.parse(script.textContent)));
      if (script.nextElementSibling?.matches("details")) script.nextElementSibling.open = false;
    }
    for (const script of document.querySelectorAll("script.figure-numbers")) {
      for (const [name, panels] of Object.entries(JSON.parse(script.textContent))) {
        const figure = document.getElementById(name)?.closest("figure") ?? document.querySelector(`#${CSS.escape(name)} figure`);
        const picture = figure?.querySelector(".panels, .wide, img");
        if (picture) new Drawn(name, panels, picture);
      }
    }
  });
})();
