// An event browser: showers side by side, turned by dragging, chosen by number, energy or keys.
"use strict";
(() => {
  const source = document.getElementById("events"), home = document.getElementById("displays");
  if (!source || !home) return;
  const scene = JSON.parse(source.textContent);
  const view = { yaw: scene.yaw, pitch: scene.pitch, zoom: 1 };
  const SKY = "#0e131b", INK = "223,230,240", LINE = "110,128,152";
  const LEVELS = 255, WHILE_TURNING = 5000, STRIP = 46;
  const TAU = 2 * Math.PI;
  let shown = 0, least = 0, turning = false, panels = [];

  // ---- data ----

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out.buffer;
  }

  function unpacked(event) {
    if (event.hits) return event.hits;
    const x = Float32Array.from(new Int16Array(bytes(event.x)), (v) => v * event.step_mm);
    const y = Float32Array.from(new Int16Array(bytes(event.y)), (v) => v * event.step_mm);
    const layer = new Uint16Array(bytes(event.layer)), level = new Uint8Array(bytes(event.level));
    const z = Float32Array.from(layer, (l) => scene.layers[l]);
    const bright = Uint32Array.from(level.keys()).sort((a, b) => level[b] - level[a]);
    return (event.hits = { x, y, z, layer, level, bright });
  }

  const decades = scene.range_mev.map(Math.log10);
  const energyOf = (level) => 10 ** (decades[0] + (decades[1] - decades[0]) * level / LEVELS);
  const number = (v, digits = 3) => String(Number(v.toPrecision(digits)));

  // ---- drawing ----

  const sprites = new Map();
  function sprite(colour, radius) {
    const key = colour + ":" + radius;
    if (!sprites.has(key)) {
      const dot = document.createElement("canvas"), size = Math.ceil(2 * radius + 2);
      dot.width = dot.height = size;
      const g = dot.getContext("2d");
      g.fillStyle = colour;
      g.beginPath();
      g.arc(size / 2, size / 2, radius, 0, TAU);
      g.fill();
      sprites.set(key, dot);
    }
    return sprites.get(key);
  }

  function camera(frame) {
    const [cx, cy, cz] = [frame.x, frame.y, frame.z].map((v) => (v[0] + v[1]) / 2);
    const half = Math.max(...[frame.x, frame.y, frame.z].map((v) => v[1] - v[0])) / 2;
    const cw = Math.cos(view.yaw), sw = Math.sin(view.yaw), cp = Math.cos(view.pitch), sp = Math.sin(view.pitch);
    return (x, y, z, out) => {
      const px = (x - cx) / half, py = (y - cy) / half, pz = (z - cz) / half;
      const away = pz * sw + px * cw, near = py * sp + away * cp;
      const size = scene.distance / Math.max(scene.distance - near, 0.2);
      out[0] = (pz * cw - px * sw) * size;
      out[1] = (py * cp - away * sp) * size;
      out[2] = near;
      out[3] = size;
      return out;
    };
  }

  function outline(frame) {
    if (!scene.polar) return [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]].map(([i, j]) => [frame.x[i], frame.y[j]]);
    const radius = Math.max(...frame.x.map(Math.abs), ...frame.y.map(Math.abs));
    return Array.from({ length: 49 }, (_, i) => [radius * Math.cos(TAU * i / 48), radius * Math.sin(TAU * i / 48)]);
  }

  // Pixels per half size of the box, so that the box fits as it stands before it is turned.
  function fit(frame, width, height) {
    const kept = { ...view };
    Object.assign(view, { yaw: scene.yaw, pitch: scene.pitch });
    const at = camera(frame), p = [0, 0, 0, 0];
    let wide = 1e-3, tall = 1e-3;
    for (const z of frame.z) for (const [x, y] of outline(frame)) { at(x, y, z, p); wide = Math.max(wide, Math.abs(p[0])); tall = Math.max(tall, Math.abs(p[1])); }
    Object.assign(view, kept);
    return 0.45 * Math.min(width / wide, height / tall);
  }

  function draw(panel) {
    const { canvas, event, frame } = panel;
    const width = canvas.clientWidth, height = canvas.clientHeight, dots = Math.min(window.devicePixelRatio || 1, 2);
    if (!width) return;
    if (canvas.width !== Math.round(width * dots)) canvas.width = Math.round(width * dots);
    if (canvas.height !== Math.round(height * dots)) canvas.height = Math.round(height * dots);
    const g = canvas.getContext("2d");
    g.setTransform(1, 0, 0, 1, 0, 0);
    g.globalAlpha = 1;
    g.fillStyle = SKY;
    g.fillRect(0, 0, canvas.width, canvas.height);
    const room = canvas.height - STRIP * dots, unit = fit(frame, canvas.width, room) * view.zoom;
    const at = camera(frame), p = [0, 0, 0, 0];
    const across = () => canvas.width / 2 + p[0] * unit, down = () => room / 2 - p[1] * unit;

    g.lineWidth = dots;
    g.strokeStyle = `rgba(${LINE},0.3)`;
    for (const z of scene.layers) {
      if (z > frame.z[1] + 1e-6) break;
      g.beginPath();
      for (const [x, y] of outline(frame)) { at(x, y, z, p); g.lineTo(across(), down()); }
      g.stroke();
    }
    const [dx, dy, dz] = event.direction, back = -0.25 * Math.max(frame.z[1], 1);
    at(dx / dz * back, dy / dz * back, back, p);
    arrow(g, [across(), down()], [(at(0, 0, 0, p), across()), down()], dots);

    const hits = unpacked(event), all = hits.bright.length;
    const limit = turning ? Math.min(all, WHILE_TURNING) : all;
    const chosen = [];
    for (let k = 0; k < limit && hits.level[hits.bright[k]] >= least; k++) {
      const i = hits.bright[k];
      at(hits.x[i], hits.y[i], hits.z[i], p);
      chosen.push([across(), down(), p[2], p[3], i]);
    }
    chosen.sort((a, b) => a[2] - b[2]);
    const last = scene.colours.length - 1;
    for (const [sx, sy, , size, i] of chosen) {
      const share = hits.level[i] / LEVELS;
      const radius = Math.max(0.9 * dots, Math.round(unit * size * (0.008 + 0.016 * share * share) * 2) / 2);
      const dot = sprite(scene.colours[Math.round(share * last)], radius);
      g.globalAlpha = 0.5 + 0.5 * share;
      g.drawImage(dot, sx - dot.width / 2, sy - dot.height / 2);
    }
    g.globalAlpha = 1;
    strip(g, panel, dots);
    panel.places = chosen;
    panel.dots = dots;
    canvas.dataset.drawn = String(chosen.length);
  }

  // The incident particle, up to where it enters.
  function arrow(g, from, to, dots) {
    const turn = Math.atan2(to[1] - from[1], to[0] - from[0]);
    g.strokeStyle = g.fillStyle = `rgb(${INK})`;
    g.lineWidth = 1.5 * dots;
    g.beginPath(); g.moveTo(...from); g.lineTo(...to); g.stroke();
    g.beginPath(); g.moveTo(...to);
    for (const side of [-1, 1]) g.lineTo(to[0] - 8 * dots * Math.cos(turn + side * 0.4), to[1] - 8 * dots * Math.sin(turn + side * 0.4));
    g.fill();
  }

  // Energy in each layer, along the bottom, on the same scale for all events side by side.
  function strip(g, panel, dots) {
    const { canvas, event } = panel, values = event.profile;
    const highest = Math.max(...panel.row.events.map((e) => Math.max(...e.profile)), 1e-12);
    const left = 12 * dots, wide = (canvas.width - 2 * left) / values.length;
    const bottom = canvas.height - 8 * dots, tall = (STRIP - 18) * dots;
    values.forEach((v, i) => {
      const h = tall * v / highest;
      g.fillStyle = `rgba(${INK},0.55)`;
      g.fillRect(left + i * wide + 0.15 * wide, bottom - h, 0.7 * wide, h);
    });
    g.fillStyle = `rgba(${LINE},0.6)`;
    g.fillRect(left, bottom, canvas.width - 2 * left, dots);
    g.fillStyle = "#93a1b5";
    g.font = `${10.5 * dots}px system-ui, sans-serif`;
    g.textAlign = "right";
    g.fillText("energy per layer", canvas.width - left, bottom - tall - 2 * dots);
    g.textAlign = "left";
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; panels.forEach(draw); });
  }

  let settling = 0;
  function turned() {
    turning = true;
    clearTimeout(settling);
    settling = setTimeout(() => { turning = false; redraw(); }, 160);
    redraw();
  }

  // ---- turning ----

  const zoomed = (factor) => { view.zoom = Math.max(0.3, Math.min(15, view.zoom * factor)); };
  function reset() { Object.assign(view, { yaw: scene.yaw, pitch: scene.pitch, zoom: 1 }); redraw(); }

  function listen(panel) {
    const canvas = panel.canvas, held = new Map();
    let spread = 0;
    canvas.addEventListener("pointerdown", (e) => {
      held.set(e.pointerId, [e.clientX, e.clientY]);
      canvas.setPointerCapture(e.pointerId);
      canvas.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointermove", (e) => {
      if (!held.has(e.pointerId)) { if (e.pointerType === "mouse") point(panel, e); return; }
      const [x, y] = held.get(e.pointerId);
      held.set(e.pointerId, [e.clientX, e.clientY]);
      if (held.size === 1) {
        view.yaw += (e.clientX - x) * 0.008;
        view.pitch = Math.max(-1.57, Math.min(1.57, view.pitch + (e.clientY - y) * 0.008));
      } else {
        const [a, b] = [...held.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (spread) zoomed(now / spread);
        spread = now;
      }
      panel.say.textContent = panel.event.title;
      turned();
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (e) => { held.delete(e.pointerId); spread = 0; });
    canvas.addEventListener("pointerleave", () => { panel.say.textContent = panel.event.title; });
    canvas.addEventListener("wheel", (e) => {
      if (document.activeElement !== canvas) return;
      e.preventDefault();
      zoomed(Math.exp(-e.deltaY * 0.0012));
      turned();
    }, { passive: false });
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
      if (step) { view.yaw += step[0]; view.pitch += step[1]; }
      else if (e.key === "+") zoomed(1.2);
      else if (e.key === "-") zoomed(1 / 1.2);
      else if (e.key === "n") next(1);
      else if (e.key === "p") next(-1);
      else return;
      e.preventDefault();
      redraw();
    });
    canvas.addEventListener("dblclick", reset);
  }

  // Says what the cell under the mouse is.
  function point(panel, e) {
    const box = panel.canvas.getBoundingClientRect();
    const x = (e.clientX - box.left) * panel.dots, y = (e.clientY - box.top) * panel.dots;
    let best = null, far = (10 * panel.dots) ** 2;
    for (const place of panel.places || []) {
      const d = (place[0] - x) ** 2 + (place[1] - y) ** 2;
      if (d <= far) { far = d; best = place[4]; }
    }
    const h = panel.event.hits;
    panel.say.textContent = best === null ? panel.event.title
      : `layer ${h.layer[best]}, x ${h.x[best].toFixed(1)} mm, y ${h.y[best].toFixed(1)} mm, about ${number(energyOf(h.level[best]), 2)} MeV`;
  }

  // ---- choosing ----

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  const bar = make("div", { className: "controls" });
  const stage = make("div", { className: "panels" });
  home.append(bar, stage);
  let low = -Infinity, high = Infinity;
  const passing = () => scene.rows.map((_, i) => i).filter((i) => scene.rows[i].energy >= low && scene.rows[i].energy <= high);

  const chooser = make("input", { type: "number", className: "short", title: "number of the shower in the file" });
  chooser.setAttribute("aria-label", "event number");
  const count = make("span", { className: "soft" });
  const previousButton = make("button", { type: "button", textContent: "‹ previous", onclick: () => next(-1) });
  const nextButton = make("button", { type: "button", textContent: "next ›", onclick: () => next(1) });

  function controls() {
    const energies = scene.rows.map((r) => r.energy);
    const limit = (label, value, use) => {
      const field = make("input", { type: "number", className: "short", placeholder: number(value), min: 0, step: "any" });
      field.setAttribute("aria-label", `${label} incident energy in GeV`);
      field.addEventListener("input", () => { use(field.value === "" ? null : Number(field.value)); filtered(); });
      return field;
    };
    const from = limit("lowest", Math.min(...energies), (v) => { low = v ?? -Infinity; });
    const to = limit("highest", Math.max(...energies), (v) => { high = v ?? Infinity; });
    if (scene.rows.length > 1) {
      bar.append(
        make("span", {}, previousButton, " ", nextButton),
        make("label", {}, "event ", chooser, " ", count),
        make("label", {}, "energy ", from, " to ", to, " GeV"),
      );
    }
    const cut = make("input", { type: "range", min: 0, max: LEVELS, value: 0 });
    cut.setAttribute("aria-label", "lowest cell energy drawn");
    const said = make("span", { className: "soft", textContent: "all" });
    cut.addEventListener("input", () => {
      least = Number(cut.value);
      said.textContent = least ? `above ${number(energyOf(least), 2)} MeV` : "all";
      redraw();
    });
    bar.append(make("label", {}, "cells ", cut, " ", said), make("button", { type: "button", textContent: "reset view", onclick: reset }));
    const ramp = make("span", { className: "ramp" });
    ramp.style.background = `linear-gradient(90deg, ${scene.colours.join(",")})`;
    bar.append(make("span", { className: "soft" }, `${number(scene.range_mev[0])} `, ramp, ` ${number(scene.range_mev[1])} MeV per cell`));
    chooser.addEventListener("change", () => {
      const wanted = Number(chooser.value), near = passing();
      if (!near.length) return;
      const distance = (i) => Math.abs(scene.rows[i].number - wanted);
      open(near.reduce((a, b) => (distance(b) < distance(a) ? b : a)));
    });
  }

  function filtered() {
    const now = passing();
    if (now.length && !now.includes(shown)) open(now[0]);
    else status();
  }

  function next(step) {
    const now = passing();
    if (!now.length) return;
    const place = now.indexOf(shown);
    open(now[(Math.max(place, 0) + step + now.length) % now.length]);
  }

  function status() {
    const now = passing();
    chooser.value = String(scene.rows[shown].number);
    count.textContent = now.length ? `${now.indexOf(shown) + 1} of ${now.length}` : "no event has such an energy";
    previousButton.disabled = nextButton.disabled = now.length < 2;
  }

  function open(index) {
    shown = index;
    const row = scene.rows[index];
    if (panels.length !== row.events.length) {
      stage.replaceChildren();
      stage.dataset.count = String(row.events.length);
      panels = row.events.map(() => {
        const canvas = make("canvas", { tabIndex: 0 });
        const panel = { canvas, name: make("b"), say: make("span") };
        stage.append(make("figure", { className: "panel" }, make("figcaption", {}, panel.name, panel.say), canvas));
        listen(panel);
        return panel;
      });
    }
    row.events.forEach((event, i) => {
      const panel = Object.assign(panels[i], { event, row, frame: row.frame });
      panel.name.textContent = event.label;
      panel.say.textContent = event.title;
      panel.canvas.setAttribute("aria-label", `${event.label}: ${event.title}`);
      panel.canvas.setAttribute("role", "img");
    });
    status();
    redraw();
  }

  controls();
  open(scene.first);
  new ResizeObserver(redraw).observe(home);
})();
