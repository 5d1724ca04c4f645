// Figures drawn from the page's own numbers: histograms and curves of all models with bands and ratios, and matrices.
"use strict";
(() => {
  const source = document.getElementById("numbers");
  if (!source) return;
  const numbers = JSON.parse(source.textContent);
  const hidden = new Set();
  const REFERENCE = /^(geant4|truth)/i;
  const COLOURS = 6, DASHES = ["", "5 3", "1.5 2.5", "8 3 2 3"];
  const SHARE = "share of showers";  // the contents of a bin, so twice as many in a bin twice as wide
  const SMALL = { left: 54, right: 10, top: 10, bottom: 38, gap: 12 };
  const BEYOND = 30;  // pixels by which what leaves a panel is still drawn, for the clip to cut
  const TOO_NOISY = 0.5;  // relative error from which on a ratio says nothing and is not drawn
  const RATIO_LIMITS = [0.02, 0.05, 0.1, 0.2, 0.5, 1];
  const tip = document.body.appendChild(Object.assign(document.createElement("div"), { className: "tip", hidden: true }));

  const isNumber = (v) => typeof v === "number" && Number.isFinite(v);
  const colourOf = (model) => `var(--m${model % COLOURS})`;
  const superscript = (n) => String(n).replace(/[-\d]/g, (c) => "⁰¹²³⁴⁵⁶⁷⁸⁹⁻"["0123456789-".indexOf(c)]);

  // ---- what is drawn ----

  // One line per series, of all models or of one; the reference of several models is drawn once where they share it.
  function lines(host) {
    const { section, curve: name, title } = host.dataset, only = Number(host.dataset.model);
    const found = [], seen = new Set();
    let curve = null, several = false;
    numbers.models.forEach((model, m) => {
      if (only >= 0 && m !== only) return;
      const c = model.findings.find((f) => f.name === section)?.curves.find((k) => k.name === name && k.title === title);
      if (!c) return;
      curve ??= c;
      const isReference = (s, i) => (i === 0 && c.ratio) || REFERENCE.test(s.label);
      const own = c.series.filter((s, i) => !isReference(s, i));
      several ||= c.series.length > 2 || own.length > 1;
      c.series.forEach((s, i) => {
        const line = { x: c.x, y: s.y, error: s.error, binned: s.y.length === c.x.length - 1 };
        if (isReference(s, i)) {
          const key = s.label + (isShare(c) ? "" : JSON.stringify([c.x, s.y]));
          if (seen.has(key)) return;
          seen.add(key);
          found.push({ ...line, label: s.label, reference: true, colour: "var(--g4)", dash: DASHES[found.filter((l) => l.reference).length % 4] });
        } else {
          const k = own.indexOf(s), label = own.length > 1 ? ofModel(s.label, model.label) : model.label;
          const dash = DASHES[(k + Math.floor(m / COLOURS)) % 4];
          found.push({ ...line, label, model: m, colour: colourOf(m), dash, under: c.ratio ? c.series[0] : null });
        }
      });
    });
    if (!curve) return { curve, found, several };
    if (host.dataset.log) curve = { ...curve, log_y: host.dataset.log === "1" };
    const scaled = isShare(curve) && !curve.log_x && found.some((l) => l.x.length !== curve.x.length || l.x.some((v, i) => v !== curve.x[i]));
    if (scaled) curve = { ...curve, y_label: `${curve.y_label} per ${compact(curve.x[1] - curve.x[0])}${(/\[.*\]/.exec(curve.x_label) || [""])[0].replace(/[[\]]/g, (b) => (b === "[" ? " " : ""))}` };
    const shown = found.filter((l) => l.reference || !hidden.has(l.model));
    return { curve, found: scaled ? shown.map((l) => perWidth(l, curve.x[1] - curve.x[0])) : shown, several };
  }

  const ofModel = (label, model) => (/^model\b/.test(label) ? label.replace("model", model) : `${model}: ${label}`);
  const isShare = (curve) => curve.y_label === SHARE;

  // Shares in bins of other widths, as shares in bins of one width: models may be histogrammed differently.
  function perWidth(line, width) {
    const factor = line.y.map((_, i) => width / (line.x[i + 1] - line.x[i])), times = (values) => values.map((v, i) => (isNumber(v) ? v * factor[i] : v));
    return { ...line, y: times(line.y), error: times(line.error), under: line.under && { ...line.under, y: times(line.under.y), error: times(line.under.error) } };
  }

  // ---- scales ----

  function linearTicks(low, high, wanted) {
    const rough = (high - low) / wanted, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((k) => k * power).find((s) => s >= rough) || 10 * power;
    const ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) ticks.push(k * step);
    return ticks;
  }

  function logTicks(low, high) {
    const [a, b] = [Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9)];
    if (b - a >= 1) {
      const every = Math.ceil((b - a + 1) / 7);
      return Array.from({ length: b - a + 1 }, (_, i) => 10 ** (a + i)).filter((_, i) => i % every === 0);
    }
    const within = [];
    for (let d = Math.floor(Math.log10(low)); d <= Math.ceil(Math.log10(high)); d++)
      for (const k of [1, 2, 5]) if (k * 10 ** d >= low && k * 10 ** d <= high) within.push(k * 10 ** d);
    return within;
  }

  function scale(low, high, from, to, log) {
    const f = log ? Math.log10 : (v) => v, a = f(low), b = f(high);
    const to01 = (v) => (f(v) - a) / (b - a || 1);
    const place = (v) => from + to01(v) * (to - from);
    const at = (pixel) => { const v = a + (pixel - from) / (to - from) * (b - a); return log ? 10 ** v : v; };
    const least = Math.min(from, to) - BEYOND, most = Math.max(from, to) + BEYOND;
    const clamp = (v) => { const p = place(v); return Number.isNaN(p) || (log && v <= 0) ? from - Math.sign(to - from) * BEYOND : Math.min(Math.max(p, least), most); };
    return { place, at, low, high, log, clamp };
  }

  // Plain numbers on an axis, or powers of ten where one of its ticks needs them.
  function tickText(v, ticks, log) {
    if (log && ticks.some((t) => t > 9999 || t < 0.009)) {
      const power = Math.floor(Math.log10(v) + 1e-9), digit = Math.round(v / 10 ** power);
      return `${digit === 1 ? "" : `${digit}×`}10${superscript(power)}`;
    }
    return String(Number(v.toPrecision(4))).replace("-", "−");
  }

  const round = (v) => Math.round(v * 100) / 100;
  const compact = (v, digits = 4) => (Math.abs(v) >= 1e5 || (v !== 0 && Math.abs(v) < 1e-3) ? v.toExponential(digits - 1) : String(Number(v.toPrecision(digits))));

  // ---- SVG ----

  function element(tag, attributes, parent, text) {
    const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [k, v] of Object.entries(attributes)) if (v !== "" && v !== null) e.setAttribute(k, v);
    if (text !== undefined) e.textContent = text;
    parent?.append(e);
    return e;
  }

  // Corners of a line: two per bin, or one per point; a value that does not exist ends a run.
  function runs(line, value) {
    const all = [];
    let run = null;
    line.y.forEach((_, i) => {
      const v = value(i);
      if (!isNumber(v)) { run = null; return; }
      if (!run) all.push((run = []));
      if (line.binned) run.push([line.x[i], v], [line.x[i + 1], v]);
      else run.push([line.x[i], v]);
    });
    return all;
  }

  const path = (run, X, Y) => "M" + run.map(([x, y]) => `${round(X.clamp(x))} ${round(Y.clamp(y))}`).join("L");

  function band(parent, line, X, Y, value, error, opacity) {
    const exists = (i) => isNumber(value(i)) && isNumber(error(i)) && error(i) > 0;
    const upper = runs(line, (i) => (exists(i) ? value(i) + error(i) : null));
    const lower = runs(line, (i) => (exists(i) ? value(i) - error(i) : null));
    upper.forEach((run, k) => {
      const back = [...lower[k]].reverse();
      element("path", { d: `${path(run, X, Y)}L${path(back, X, Y).slice(1)}Z`, fill: line.colour, "fill-opacity": opacity }, parent);
    });
  }

  function stroke(parent, line, X, Y, value, width) {
    for (const run of runs(line, value)) {
      const dots = !line.binned && run.length <= 40;
      if (run.length > 1) element("path", { d: path(run, X, Y), fill: "none", stroke: line.colour, "stroke-width": width, "stroke-dasharray": line.dash, "stroke-linejoin": "round" }, parent);
      if (dots) for (const [x, y] of run) element("circle", { cx: round(X.clamp(x)), cy: round(Y.clamp(y)), r: 2.4, fill: line.colour }, parent);
    }
  }

  function ranges(curve, found, ratio) {
    const positive = (v) => isNumber(v) && v > 0;
    let xs = [];
    for (const l of found) {
      const kept = l.y.map((v, i) => i).filter((i) => !(l.binned && ratio) || positive(l.y[i]));
      if (kept.length) xs.push(l.x[kept[0]], l.x[kept[kept.length - 1] + (l.binned ? 1 : 0)]);
    }
    if (curve.log_x) xs = found.flatMap((l) => l.x).filter((v) => positive(v) && v >= Math.min(...xs.filter(isNumber)) && v <= Math.max(...xs));
    xs = xs.filter(isNumber);
    const x = xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
    if (x[0] === x[1]) { x[0] -= 0.5; x[1] += 0.5; }
    if (!found.some((l) => l.binned) && xs.length) {
      if (curve.log_x) { const k = (x[1] / x[0]) ** 0.04; x[0] /= k; x[1] *= k; }
      else { const k = 0.04 * (x[1] - x[0]); x[0] -= k; x[1] += k; }
    }
    const ys = found.flatMap((l) => l.y.flatMap((v, i) => (isNumber(v) ? [v, ...(isNumber(l.error[i]) && !curve.log_y ? [v + l.error[i], v - l.error[i]] : [])] : [])));
    let y;
    if (curve.log_y) {
      const above = ys.filter((v) => v > 0), top = Math.max(...above), bottom = Math.max(Math.min(...above), top * 1e-7);
      y = above.length ? [bottom / 2, top * 4] : [0.1, 1];
    } else {
      let [a, b] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 1];
      if (found.some((l) => l.binned) || (a > 0 && a < 0.4 * b)) a = Math.min(a, 0);
      if (found.every((l) => l.y.every((v) => !isNumber(v) || v >= 0))) a = Math.max(a, 0);
      if (a === b) { a -= 0.5; b += 0.5; }
      y = [a === 0 ? 0 : a - 0.06 * (b - a), b + 0.1 * (b - a)];
    }
    return { x, y };
  }

  function ratioLimit(found) {
    const far = [];
    for (const l of found) if (l.under) l.y.forEach((v, i) => {
      const r = l.under.y[i];
      if (isNumber(v) && r > 0 && l.error[i] / r < 0.15) far.push(Math.abs(v / r - 1) + 0.5 * l.error[i] / r);
    });
    far.sort((a, b) => a - b);
    const typical = far.length ? far[Math.floor(0.95 * (far.length - 1))] : 0.2;
    return RATIO_LIMITS.find((limit) => typical * 1.15 < limit) || 1;
  }

  const ticksOf = (low, high, log) => (log ? logTicks(low, high) : linearTicks(low, high, 4));

  const xTicksOf = (low, high, log) => (log ? logTicks(low, high) : linearTicks(low, high, 6));

  // Room for the half of the last number that reaches beyond the horizontal axis.
  function rightMargin(curve, range) {
    const ticks = xTicksOf(...range.x, curve.log_x), last = ticks.length ? tickText(ticks[ticks.length - 1], ticks, curve.log_x) : "";
    return Math.max(SMALL.right, 3 + 3.4 * last.length);
  }

  // The power of ten that is written once, above the axis, where its ticks are small or large.
  function powerOf(ticks, log) {
    const biggest = Math.max(...ticks.map(Math.abs), 0);
    return !log && biggest > 0 && (biggest < 0.02 || biggest >= 1e5) ? 3 * Math.floor(Math.log10(biggest) / 3) : 0;
  }

  // Room for the longest number on the vertical axes, so that their labels stay clear of it.
  function leftMargin(curve, range, ratioTicks) {
    const ticks = ticksOf(...range.y, curve.log_y), power = powerOf(ticks, curve.log_y);
    const texts = [...ticks.map((t) => tickText(power ? t / 10 ** power : t, ticks, curve.log_y)), ...ratioTicks.map((t) => tickText(t, ratioTicks, false))];
    return Math.max(SMALL.left, 24 + 6.6 * Math.max(...texts.map((t) => t.length), 0));
  }

  // What each line is, beneath a figure in which a model has more than one.
  function named(found) {
    const list = document.createElement("div");
    list.className = "lines";
    for (const l of found) {
      const sample = element("svg", { viewBox: "0 0 26 8", width: 26, height: 8, "aria-hidden": "true" });
      element("line", { x1: 0, x2: 26, y1: 4, y2: 4, stroke: l.colour, "stroke-width": 2, "stroke-dasharray": l.dash }, sample);
      const item = document.createElement("span");
      item.append(sample, ` ${l.label}`);
      list.append(item);
    }
    return list;
  }

  function axes(parent, X, Y, box, label, last) {
    const g = element("g", { class: "axes" }, parent);
    const yTicks = label.ticks || ticksOf(Y.low, Y.high, Y.log), power = powerOf(yTicks, Y.log);
    for (const t of yTicks) {
      const y = round(Y.place(t));
      element("line", { x1: box.left, x2: box.right, y1: y, y2: y, stroke: "var(--grid)" }, g);
      element("text", { x: box.left - 6, y: y + 3.5, "text-anchor": "end", fill: "var(--soft)" }, g, tickText(power ? t / 10 ** power : t, yTicks, Y.log));
    }
    const xTicks = xTicksOf(X.low, X.high, X.log);
    for (const t of xTicks) {
      const x = round(X.place(t));
      element("line", { x1: x, x2: x, y1: box.bottom, y2: box.bottom + 4, stroke: "var(--soft)" }, g);
      if (last) element("text", { x, y: box.bottom + 16, "text-anchor": "middle", fill: "var(--soft)" }, g, tickText(t, xTicks, X.log));
    }
    element("line", { x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom, stroke: "var(--soft)" }, g);
    if (power) element("text", { x: box.left, y: box.top - 1, fill: "var(--soft)", "font-size": 10 }, g, `×10${superscript(power)}`);
    const middle = (box.top + box.bottom) / 2;
    const room = box.bottom - box.top + 8, long = label.y.length * 5.9 > room;
    element("text", { transform: `translate(12 ${middle}) rotate(-90)`, "text-anchor": "middle", fill: "var(--ink)", textLength: long ? room : "", lengthAdjust: long ? "spacingAndGlyphs" : "" }, g, label.y);
    if (last) element("text", { x: box.right, y: box.bottom + 33, "text-anchor": "end", fill: "var(--ink)" }, g, label.x);
  }

  let clips = 0;
  function clipped(svg, box) {
    const id = `clip${clips++}`, clip = element("clipPath", { id }, svg);
    element("rect", { x: box.left, y: box.top - 1, width: box.right - box.left, height: box.bottom - box.top + 1 }, clip);
    return element("g", { "clip-path": `url(#${id})` }, svg);
  }

  function drawCurve(host) {
    const { curve, found, several } = lines(host);
    const place = host.querySelector(".canvas");
    const width = Math.max(240, Math.round(place.clientWidth || 360));
    if (!curve) return;
    host.querySelector("[data-log]")?.setAttribute("aria-pressed", String(Boolean(curve.log_y)));
    const ratio = curve.ratio && found.some((l) => l.under);
    const height = Math.round(Math.min(ratio ? 330 : 270, width * (ratio ? 0.86 : 0.7)));
    const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": curve.title, "font-size": 11, "font-family": "system-ui, sans-serif" });
    const split = ratio ? Math.round(height * 0.68) : height - SMALL.bottom;
    const range = ranges(curve, found, curve.ratio), limit = ratio ? ratioLimit(found) : 0, ratioTicks = [1 - limit / 2, 1, 1 + limit / 2];
    const top = { left: leftMargin(curve, range, ratio ? ratioTicks : []), right: width - rightMargin(curve, range), top: SMALL.top, bottom: split };
    const X = scale(...range.x, top.left, top.right, curve.log_x), Y = scale(...range.y, top.bottom, top.top, curve.log_y);
    axes(svg, X, Y, top, { x: curve.x_label, y: curve.y_label }, !ratio);
    const upper = clipped(svg, top);
    for (const l of found) {
      const value = (i) => l.y[i], error = (i) => l.error[i];
      if (l.reference && l.binned && curve.ratio) {
        for (const run of runs(l, value))
          element("path", { d: `${path(run, X, Y)}L${round(X.clamp(run[run.length - 1][0]))} ${top.bottom}L${round(X.clamp(run[0][0]))} ${top.bottom}Z`, fill: l.colour, "fill-opacity": 0.16 }, upper);
      }
      band(upper, l, X, Y, value, error, l.reference ? 0.35 : 0.22);
      stroke(upper, l, X, Y, value, l.reference ? 1.1 : 1.6);
    }
    if (ratio) {
      const box = { left: top.left, right: top.right, top: split + SMALL.gap, bottom: height - SMALL.bottom };
      const R = scale(1 - limit, 1 + limit, box.bottom, box.top, false);
      axes(svg, X, R, box, { x: curve.x_label, y: "ratio", ticks: ratioTicks }, true);
      const first = found.find((l) => l.reference), lower = clipped(svg, box);
      const clear = (l, i) => l.y[i] > 0 && !(l.error[i] / l.y[i] > TOO_NOISY);
      if (first) band(lower, first, X, R, (i) => (clear(first, i) ? 1 : null), (i) => first.error[i] / first.y[i], 0.35);
      element("line", { x1: box.left, x2: box.right, y1: R.place(1), y2: R.place(1), stroke: "var(--g4)" }, svg);
      for (const l of found) if (l.under) {
        const value = (i) => (clear(l.under, i) && isNumber(l.y[i]) && !(l.error[i] / l.under.y[i] > 2 * TOO_NOISY) ? l.y[i] / l.under.y[i] : null);
        band(lower, l, X, R, value, (i) => l.error[i] / l.under.y[i], 0.25);
        stroke(lower, l, X, R, value, 1.4);
      }
    }
    place.replaceChildren(svg, ...(several ? [named(found)] : []));
    pointing(svg, curve, found, X, top, width);
  }

  // ---- reading values ----

  function pointing(svg, curve, found, X, box, width) {
    const mark = element("line", { y1: box.top, y2: svg.viewBox.baseVal.height - SMALL.bottom, stroke: "var(--soft)", "stroke-dasharray": "2 3", visibility: "hidden" }, svg);
    const nearest = (l, x) => {
      if (!l.binned) return l.x.reduce((best, v, i) => (Math.abs(X.place(v) - X.place(x)) < Math.abs(X.place(l.x[best]) - X.place(x)) ? i : best), 0);
      const i = l.x.findIndex((edge) => edge > x) - 1;
      return i >= 0 && i < l.y.length ? i : -1;
    };
    const move = (e) => {
      const seen = svg.getBoundingClientRect(), px = (e.clientX - seen.left) * width / seen.width;
      if (!found.length || px < box.left || px > box.right) { leave(); return; }
      const x = X.at(px), l0 = found[0], i0 = nearest(l0, x);
      if (i0 < 0) { leave(); return; }
      const centre = l0.binned ? (X.clamp(l0.x[i0]) + X.clamp(l0.x[i0 + 1])) / 2 : X.clamp(l0.x[i0]);
      mark.setAttribute("x1", centre); mark.setAttribute("x2", centre); mark.setAttribute("visibility", "visible");
      const where = l0.binned ? `${compact(l0.x[i0])} to ${compact(l0.x[i0 + 1])}` : compact(l0.x[i0]);
      tip.replaceChildren(Object.assign(document.createElement("b"), { textContent: `${curve.x_label}: ${where}` }));
      for (const l of found) {
        const i = nearest(l, x);
        if (i < 0 || !isNumber(l.y[i])) continue;
        const row = tip.appendChild(document.createElement("div"));
        row.append(swatch(l.colour), ` ${l.label}: ${compact(l.y[i])}${l.error[i] > 0 ? ` ± ${compact(l.error[i], 2)}` : ""}`);
        if (l.under && l.under.y[i] > 0) row.append(`  (${(l.y[i] / l.under.y[i]).toFixed(3)})`);
      }
      showTip(e);
    };
    const leave = () => { tip.hidden = true; mark.setAttribute("visibility", "hidden"); };
    svg.addEventListener("pointermove", move);
    svg.addEventListener("pointerdown", move);
    svg.addEventListener("pointerleave", leave);
  }

  function swatch(colour) {
    const s = document.createElement("i");
    s.className = "swatch";
    s.style.background = colour;
    return s;
  }

  function showTip(e) {
    tip.hidden = false;
    const wide = tip.offsetWidth, tall = tip.offsetHeight;
    const x = Math.min(Math.max(8, e.clientX + 16), document.documentElement.clientWidth - wide - 8);
    const y = e.clientY + 18 + tall > window.innerHeight ? e.clientY - tall - 12 : e.clientY + 18;
    tip.style.transform = `translate(${Math.round(x)}px, ${Math.round(y)}px)`;
  }

  // ---- matrices ----

  const mixed = (a, b, t) => a.map((v, i) => Math.round(v + (b[i] - v) * t));
  function shade(v, low, high, dark) {
    const ground = dark ? [22, 29, 40] : [250, 251, 252], red = dark ? [240, 113, 90] : [178, 34, 46], blue = dark ? [98, 156, 255] : [31, 92, 184];
    if (low < 0 && high > 0) return v >= 0 ? mixed(ground, red, Math.min(1, v / high)) : mixed(ground, blue, Math.min(1, v / low));
    return mixed(ground, blue, Math.min(1, Math.max(0, (v - low) / (high - low || 1))));
  }

  // The colours from the lowest to the highest value of a matrix, with its numbers.
  function colourBar(matrix, dark) {
    const bar = document.createElement("div"), ramp = document.createElement("i");
    const stops = Array.from({ length: 17 }, (_, i) => `rgb(${shade(matrix.low + (matrix.high - matrix.low) * i / 16, matrix.low, matrix.high, dark)})`);
    ramp.style.background = `linear-gradient(90deg, ${stops.join(",")})`;
    bar.className = "colours";
    const values = [].concat(...matrix.values).filter(isNumber), text = (v) => compact(v, 2).replace("-", "−");
    const room = 1e-4 * (matrix.high - matrix.low), below = values.some((v) => v < matrix.low - room), above = values.some((v) => v > matrix.high + room);
    bar.append(`${below ? "≤ " : ""}${text(matrix.low)}`, ramp, `${above ? "≥ " : ""}${text(matrix.high)}`);
    return bar;
  }

  // Entries to a hundredth of the colour range, so that small ones do not crowd the cells.
  const entryText = (v, matrix) => v.toFixed(Math.max(0, 2 - Math.ceil(Math.log10((matrix.high - matrix.low) / 2 + 1e-12)))).replace(/^-(?=[0.]*$)/, "").replace("-", "−");

  function drawMatrix(host) {
    const m = Number(host.dataset.model), findings = m < 0 ? numbers.competition : numbers.models[m].findings.find((f) => f.name === host.dataset.section);
    const matrix = { ...findings.matrices.find((k) => k.name === host.dataset.matrix) };
    if (m >= 0) {  // one range of colours for all models, so that they can be compared
      const alike = numbers.models.flatMap((k) => k.findings.filter((f) => f.name === host.dataset.section).flatMap((f) => f.matrices.filter((x) => x.name === matrix.name)));
      matrix.low = Math.min(...alike.map((x) => x.low));
      matrix.high = Math.max(...alike.map((x) => x.high));
    }
    const place = host.querySelector(".canvas"), rows = matrix.values.length, columns = matrix.column_labels.length;
    const width = Math.max(220, place.clientWidth || 320), longest = Math.max(...matrix.row_labels.map((t) => t.length), 1);
    const left = Math.min(width * 0.36, 10 + 5.8 * longest), bottom = Math.min(110, 10 + 5.2 * Math.max(...matrix.column_labels.map((t) => t.length), 1));
    const cell = (width - left - 4) / columns, tall = Math.max(Math.min(cell, 34), 2), height = tall * rows + bottom;
    const canvas = document.createElement("canvas"), dots = Math.min(window.devicePixelRatio || 1, 2), style = getComputedStyle(document.body);
    canvas.style.height = `${height}px`;
    canvas.width = width * dots; canvas.height = height * dots;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", matrix.title);
    const g = canvas.getContext("2d"), dark = matchMedia("(prefers-color-scheme: dark)").matches;
    g.scale(dots, dots);
    matrix.values.forEach((row, r) => row.forEach((v, c) => {
      const [x0, x1] = [left + c * cell, left + (c + 1) * cell].map((p) => Math.round(p * dots) / dots);
      const [y0, y1] = [r * tall, (r + 1) * tall].map((p) => Math.round(p * dots) / dots);
      g.fillStyle = isNumber(v) ? `rgb(${shade(v, matrix.low, matrix.high, dark)})` : style.getPropertyValue("--line");
      g.fillRect(x0, y0, x1 - x0, y1 - y0);
      if (isNumber(v) && cell > 34 && tall > 16) {
        const strength = Math.max(...[matrix.low, matrix.high].map(Math.abs));
        g.fillStyle = Math.abs(v) > 0.6 * strength && !dark ? "#fff" : style.color;
        g.font = "10px system-ui, sans-serif"; g.textAlign = "center"; g.textBaseline = "middle";
        g.fillText(entryText(v, matrix), left + (c + 0.5) * cell, (r + 0.5) * tall);
      }
    }));
    g.fillStyle = style.getPropertyValue("--soft");
    g.font = "10.5px system-ui, sans-serif";
    g.textAlign = "right"; g.textBaseline = "middle";
    const everyRow = Math.ceil(12 / tall), everyColumn = Math.ceil(13 / cell);
    matrix.row_labels.forEach((t, r) => { if (r % everyRow === 0) g.fillText(t, left - 5, (r + 0.5) * tall, left - 8); });
    matrix.column_labels.forEach((t, c) => {
      if (c % everyColumn) return;
      g.save(); g.translate(left + (c + 0.5) * cell, rows * tall + 5); g.rotate(-Math.PI / 2); g.fillText(t, 0, 0, bottom - 8); g.restore();
    });
    canvas.dataset.drawn = String(rows * columns);
    place.replaceChildren(canvas, colourBar(matrix, dark));
    const at = (e) => {
      const box = canvas.getBoundingClientRect(), c = Math.floor((e.clientX - box.left - left) / cell), r = Math.floor((e.clientY - box.top) / tall);
      if (c < 0 || c >= columns || r < 0 || r >= rows) { tip.hidden = true; return; }
      const v = matrix.values[r][c];
      tip.replaceChildren(`${matrix.row_labels[r]} · ${matrix.column_labels[c]}: ${isNumber(v) ? compact(v, 3) : "none"}`);
      showTip(e);
    };
    canvas.addEventListener("pointermove", at);
    canvas.addEventListener("pointerdown", at);
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // ---- when ----

  const hosts = [...document.querySelectorAll("figure[data-curve], figure[data-matrix]")];
  const draw = (host) => { host.dataset.done = "1"; (host.dataset.curve ? drawCurve : drawMatrix)(host); };
  const drawnAgain = (some) => some.filter((h) => h.dataset.done).forEach(draw);
  const watcher = new IntersectionObserver((entries) => {
    for (const e of entries) if (e.isIntersecting && !e.target.dataset.done) draw(e.target);
  }, { rootMargin: "900px 0px" });
  hosts.forEach((h) => watcher.observe(h));
  window.addEventListener("beforeprint", () => hosts.forEach(draw));

  // The rest in idle time, for pictures of the whole page; what is folded away has no width yet and waits for the watcher.
  const idle = window.requestIdleCallback ? (f) => window.requestIdleCallback(f, { timeout: 500 }) : (f) => setTimeout(() => f({ timeRemaining: () => 0 }), 20);
  const waiting = [...hosts];
  const drawRest = (deadline) => {
    do {
      const host = waiting.shift();
      if (host && !host.dataset.done && host.querySelector(".canvas").clientWidth) draw(host);
    } while (waiting.length && deadline.timeRemaining() > 5);
    if (waiting.length) idle(drawRest);
  };
  window.addEventListener("load", () => idle(drawRest));
  document.addEventListener("toggle", (e) => drawnAgain(hosts.filter((h) => e.target.open && e.target.contains(h))), true);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawnAgain(hosts.filter((h) => h.dataset.matrix)));
  let width = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth === width) return;
    width = document.documentElement.clientWidth;
    drawnAgain(hosts);
  });

  for (const button of document.querySelectorAll("button[data-toggle]"))
    button.addEventListener("click", () => {
      const m = Number(button.dataset.toggle), off = !hidden.has(m);
      if (off) hidden.add(m); else hidden.delete(m);
      button.setAttribute("aria-pressed", String(!off));
      drawnAgain(hosts.filter((h) => h.dataset.curve));
    });

  // A figure as a file of its own: colours written out, names of the models beneath.
  function standalone(host) {
    const svg = host.querySelector("svg").cloneNode(true), { found } = lines(host);
    const [w, h] = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height], style = getComputedStyle(document.documentElement);
    const named = found.filter((l) => l.label), tall = h + 8 + 15 * named.length;
    named.forEach((l, i) => {
      const y = h + 8 + 15 * i;
      element("line", { x1: SMALL.left, x2: SMALL.left + 20, y1: y, y2: y, stroke: l.colour, "stroke-width": 2, "stroke-dasharray": l.dash }, svg);
      element("text", { x: SMALL.left + 26, y: y + 4, fill: "var(--ink)" }, svg, l.label);
    });
    svg.setAttribute("viewBox", `0 0 ${w} ${tall}`);
    svg.setAttribute("height", tall);
    const text = new XMLSerializer().serializeToString(svg);
    return text.replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
  }

  function save(name, type, text) {
    const link = Object.assign(document.createElement("a"), { download: name, href: URL.createObjectURL(new Blob([text], { type })) });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  for (const button of document.querySelectorAll("button[data-log]"))
    button.addEventListener("click", () => {
      const host = button.closest("figure");
      host.dataset.log = button.getAttribute("aria-pressed") === "true" ? "0" : "1";
      draw(host);
    });
  for (const button of document.querySelectorAll("button[data-svg]"))
    button.addEventListener("click", () => { const host = button.closest("figure"); draw(host); save(`${host.dataset.curve}.svg`, "image/svg+xml", standalone(host)); });
  document.getElementById("save-json")?.addEventListener("click", () => save("scores.json", "application/json", JSON.stringify(numbers, null, 1)));
})();
