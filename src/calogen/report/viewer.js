// Turns readout cells under the mouse: drag to turn, wheel (after a click) or pinch to zoom, double click to reset.
"use strict";
(() => {
  const scene = JSON.parse(document.getElementById("events").textContent);
  const view = { yaw: scene.yaw, pitch: scene.pitch, zoom: 1 };
  const panels = [];
  const FRAME = "rgba(110,128,152,", TEXT = "#dfe6f0";

  function project(frame, x, y, z) {
    const px = (x - frame.cx) / frame.half, py = (y - frame.cy) / frame.half, pz = (z - frame.cz) / frame.half;
    const side = pz * Math.cos(view.yaw) - px * Math.sin(view.yaw);
    const away = pz * Math.sin(view.yaw) + px * Math.cos(view.yaw);
    const up = py * Math.cos(view.pitch) - away * Math.sin(view.pitch);
    const near = py * Math.sin(view.pitch) + away * Math.cos(view.pitch);
    const size = scene.distance / Math.max(scene.distance - near, 0.2);
    return [side * size, up * size, near, size];
  }

  function draw(panel) {
    const { canvas, event, frame } = panel;
    const width = canvas.clientWidth, height = canvas.clientHeight, dots = window.devicePixelRatio || 1;
    if (!width) return;
    canvas.width = width * dots; canvas.height = height * dots;
    const g = canvas.getContext("2d");
    g.scale(dots, dots);
    g.fillStyle = "#0e131b"; g.fillRect(0, 0, width, height);
    const unit = Math.min(width / 2.4, height / 2.0) * view.zoom;
    const at = (p) => [width / 2 + p[0] * unit, height / 2 - p[1] * unit];

    g.lineWidth = 1;
    for (const z of event.layers) {
      if (z > frame.z[1] + 1e-6) break;
      g.strokeStyle = FRAME + "0.22)";
      g.beginPath();
      for (const [x, y] of [[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
        g.lineTo(...at(project(frame, frame.x[x], frame.y[y], z)));
      g.stroke();
    }
    const [dx, dy, dz] = event.direction, back = -0.25 * frame.half;
    g.strokeStyle = TEXT; g.lineWidth = 1.5;
    g.beginPath();
    g.moveTo(...at(project(frame, dx / dz * back, dy / dz * back, back)));
    g.lineTo(...at(project(frame, 0, 0, 0)));
    g.stroke();

    const points = event.x.map((x, i) => [...project(frame, x, event.y[i], event.z[i]), event.colour[i]]);
    points.sort((a, b) => a[2] - b[2]);
    const last = scene.colours.length - 1;
    for (const p of points) {
      const [sx, sy] = at(p), share = p[4] / last;
      g.globalAlpha = 0.5 + 0.5 * share;
      g.fillStyle = scene.colours[p[4]];
      g.beginPath();
      g.arc(sx, sy, Math.max(0.8, unit * p[3] * (0.008 + 0.016 * share * share)), 0, 2 * Math.PI);
      g.fill();
    }
    g.globalAlpha = 1;
    g.fillStyle = TEXT; g.font = "600 14px system-ui, sans-serif"; g.fillText(event.label, 12, 22);
    g.fillStyle = "#93a1b5"; g.font = "12px system-ui, sans-serif"; g.fillText(event.title, 12, height - 12);
    canvas.dataset.drawn = String(points.length);
  }

  let waiting = false;
  function redraw() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; panels.forEach(draw); });
  }

  function listen(canvas) {
    const held = new Map();
    let spread = 0;
    canvas.addEventListener("pointerdown", (e) => {
      held.set(e.pointerId, [e.clientX, e.clientY]);
      canvas.setPointerCapture(e.pointerId);
      canvas.focus();
    });
    canvas.addEventListener("pointermove", (e) => {
      if (!held.has(e.pointerId)) return;
      const [x, y] = held.get(e.pointerId);
      held.set(e.pointerId, [e.clientX, e.clientY]);
      if (held.size === 1) {
        view.yaw += (e.clientX - x) * 0.008;
        view.pitch = Math.max(-1.57, Math.min(1.57, view.pitch + (e.clientY - y) * 0.008));
      } else {
        const [a, b] = [...held.values()], now = Math.hypot(a[0] - b[0], a[1] - b[1]);
        if (spread) view.zoom = Math.max(0.3, Math.min(12, view.zoom * now / spread));
        spread = now;
      }
      redraw();
    });
    for (const name of ["pointerup", "pointercancel"])
      canvas.addEventListener(name, (e) => { held.delete(e.pointerId); spread = 0; });
    canvas.addEventListener("wheel", (e) => {
      if (document.activeElement !== canvas) return;
      e.preventDefault();
      view.zoom = Math.max(0.3, Math.min(12, view.zoom * Math.exp(-e.deltaY * 0.0012)));
      redraw();
    }, { passive: false });
    canvas.addEventListener("keydown", (e) => {
      const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] }[e.key];
      if (!step) return;
      e.preventDefault();
      view.yaw += step[0]; view.pitch += step[1];
      redraw();
    });
    canvas.addEventListener("dblclick", () => {
      Object.assign(view, { yaw: scene.yaw, pitch: scene.pitch, zoom: 1 });
      redraw();
    });
  }

  const home = document.getElementById("displays");
  for (const row of scene.rows) {
    const f = row.frame, middle = (v) => (v[0] + v[1]) / 2;
    const half = Math.max(...[f.x, f.y, f.z].map((v) => v[1] - v[0])) / 2;
    const frame = { ...f, cx: middle(f.x), cy: middle(f.y), cz: middle(f.z), half };
    const box = document.createElement("div");
    box.className = "display-row";
    for (const event of row.events) {
      const canvas = document.createElement("canvas");
      canvas.tabIndex = 0;
      canvas.setAttribute("aria-label", `${event.label}: ${event.title}`);
      box.appendChild(canvas);
      panels.push({ canvas, event, frame });
      listen(canvas);
    }
    home.appendChild(box);
  }
  new ResizeObserver(redraw).observe(home);
  redraw();
})();
