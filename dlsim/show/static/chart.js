// Pictures of numbers that were computed elsewhere: scales, bars, lines.
"use strict";
var dlsim = globalThis.dlsim || {};
globalThis.dlsim = dlsim;

dlsim.svg = function (name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

// round numbers from `low` to `high`, about `count` of them
dlsim.ticks = function (low, high, count) {
  const rough = (high - low) / Math.max(count, 1);
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((each) => each * power).find((each) => each >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let k = first; k * step <= high + step * 1e-9; k++) found.push(k * step || 0);
  return found;
};

dlsim.seconds = function (value, span) {
  const [unit, scale] = span < 2e-3 ? ["µs", 1e6] : span < 2 ? ["ms", 1e3] : ["s", 1];
  const digits = Math.max(0, 2 - Math.floor(Math.log10(span * scale || 1)));
  return `${Number((value * scale).toFixed(digits)).toLocaleString("en")} ${unit}`;
};

dlsim.bytes = function (value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let k = 0;
  while (Math.abs(value) >= 1024 && k < 4) { value /= 1024; k++; }
  return `${Number(value.toPrecision(3))} ${units[k]}`;
};

// An empty picture in `box`, as wide as it is: where x and y lie, and a place for marks.
dlsim.axes = function (box, { height, left, x, y, bottom = 18, top = 6, label, xs, ys, unit = 1 }) {
  const width = Math.max(box.clientWidth, 260), right = 8;
  const picture = dlsim.svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  const X = (value) => left + ((value - x[0]) / (x[1] - x[0] || 1)) * (width - left - right);
  const Y = (value) => height - bottom - ((value - y[0]) / (y[1] - y[0] || 1)) * (height - bottom - top);
  if (ys) for (const value of dlsim.ticks(y[0] / unit, y[1] / unit, Math.max(2, Math.floor((height - bottom) / 34))).map((tick) => tick * unit)) {
    picture.append(dlsim.svg("line", { class: "grid", x1: left, x2: width - right, y1: Y(value), y2: Y(value) }));
    const text = dlsim.svg("text", { x: left - 5, y: Y(value) + 4, "text-anchor": "end" });
    text.textContent = ys(value);
    picture.append(text);
  }
  const count = Math.floor((width - left - right) / 80);
  for (const value of dlsim.ticks(x[0], x[1], count)) {
    const at = X(value), anchor = at > width - 24 ? "end" : at < left + 14 ? "start" : "middle";
    const text = dlsim.svg("text", { x: Math.min(at, width - 2), y: height - 4, "text-anchor": anchor });
    text.textContent = xs(value);
    picture.append(dlsim.svg("line", { class: "grid", x1: at, x2: at, y1: height - bottom, y2: height - bottom + 4 }), text);
  }
  box.replaceChildren(picture);
  return { picture, X, Y, width, height, left, right, inner: width - left - right };
};

// Who did what when.
dlsim.gantt = function (box, data, { lane = 22, label, picked, zoomed } = {}) {
  const lanes = data.lanes, span = data.end - data.begin;
  const small = lanes.length > 20;
  const high = small ? Math.max(7, Math.floor(440 / lanes.length)) : lane;
  const height = lanes.length * high + 24;
  const narrow = box.clientWidth < 480;
  const axes = dlsim.axes(box, { height, left: narrow ? 44 : 84, x: [data.begin, data.end], y: [0, 1], top: 2,
    label: label || "Who did what when", xs: (value) => dlsim.seconds(value, span) });
  const { picture, X } = axes;
  lanes.forEach((row, index) => {
    const top = index * high + 2, thick = Math.max(high - 4, 4);
    if (!small || index % Math.ceil(14 / high) === 0 || index === 0) {
      const name = dlsim.svg("text", { x: axes.left - 6, y: top + thick / 2 + 4, "text-anchor": "end" });
      name.textContent = narrow ? row.name.replace("main process", "main").replace("worker", "w") : row.name;
      picture.append(name);
    }
    const filled = []; // shares of columns, from the foot up
    for (const kind of ["step", "barrier", "fetch", "wait"]) {
      const marks = row[kind];
      if (!marks || !marks.length) continue;
      if (row.dense) {
        // columns as high as the share of the time; waits hang from above
        const wide = axes.inner / marks.length, foot = top + thick;
        let path = "";
        marks.forEach((share, k) => {
          if (!share) return;
          const tall = (thick * share) / 100, below = (thick * (filled[k] || 0)) / 100;
          if (kind !== "wait") filled[k] = (filled[k] || 0) + share;
          path += `M${(axes.left + k * wide).toFixed(1)} ${(kind === "wait" ? top : foot - below - tall).toFixed(1)}h${(wide + 0.3).toFixed(1)}v${tall.toFixed(1)}h${(-wide - 0.3).toFixed(1)}z`;
        });
        picture.append(dlsim.svg("path", { class: kind, d: path }));
      } else for (const [begin, end, batch] of marks) {
        const from = X(begin), wide = Math.max(X(end) - from - 0.7, 0.6);
        picture.append(dlsim.svg("rect", { class: kind, x: from, y: top, width: wide, height: thick, rx: wide > 6 ? 2.5 : 0 }));
        if ((kind === "step" || kind === "fetch") && wide > 7 * String(batch).length + 4 && high > 13) {
          const text = dlsim.svg("text", { class: `number on-${kind}`, x: from + wide / 2, y: top + thick / 2 + 3.5 });
          text.textContent = batch;
          picture.append(text);
        }
      }
    }
  });
  const now = dlsim.svg("line", { class: "now", y1: 0, y2: height - 18, visibility: "hidden" });
  picture.append(now);
  const time = (event) => {
    const seen = picture.getBoundingClientRect();
    const x = ((event.clientX - seen.left) / seen.width) * axes.width;
    return data.begin + (Math.min(Math.max(x - axes.left, 0), axes.inner) / axes.inner) * span;
  };
  if (picked || zoomed) dlsim.drag(picture, axes, time, height, picked, zoomed);
  return { at(moment) {
    const inside = moment >= data.begin && moment <= data.end;
    now.setAttribute("visibility", inside ? "visible" : "hidden");
    if (inside) { now.setAttribute("x1", X(moment)); now.setAttribute("x2", X(moment)); }
  } };
};

// A click picks a moment; dragging picks a stretch.
dlsim.drag = function (picture, axes, time, height, picked, zoomed) {
  picture.style.cursor = zoomed ? "crosshair" : "pointer";
  let from = null;
  const band = dlsim.svg("rect", { class: "select", y: 0, height: height - 18, width: 0, visibility: "hidden" });
  picture.append(band);
  const place = (event) => {
    const seen = picture.getBoundingClientRect();
    return ((event.clientX - seen.left) / seen.width) * axes.width;
  };
  picture.addEventListener("pointerdown", (event) => {
    from = { x: place(event), time: time(event) };
    picture.setPointerCapture(event.pointerId);
  });
  picture.addEventListener("pointermove", (event) => {
    if (!from || !zoomed) return;
    const x = place(event);
    band.setAttribute("x", Math.min(x, from.x));
    band.setAttribute("width", Math.abs(x - from.x));
    band.setAttribute("visibility", "visible");
  });
  picture.addEventListener("pointerup", (event) => {
    if (!from) return;
    const apart = Math.abs(place(event) - from.x), to = time(event);
    const [low, high] = [Math.min(from.time, to), Math.max(from.time, to)];
    from = null;
    band.setAttribute("visibility", "hidden");
    if (zoomed && apart > 6) zoomed(low, high);
    else if (picked) picked(to);
  });
  picture.addEventListener("pointercancel", () => { from = null; band.setAttribute("visibility", "hidden"); });
};

// Levels over time: steps, or means with bands from the least to the greatest.
dlsim.levels = function (box, data, { height = 130, label, ys = (value) => value, binary = false } = {}) {
  const span = data.end - data.begin;
  let most = data.limit && data.limit < 1e18 ? data.limit : 0;
  const highest = Math.max(0, ...Object.values(data.curves).flatMap((each) => each.high || each.counts));
  if (most > 4 * highest && highest > 0) most = 0; // a limit far above would flatten all else
  const axes = dlsim.axes(box, { height, left: box.clientWidth < 480 ? 54 : 84, x: [data.begin, data.end],
    y: [0, 1.06 * Math.max(highest, most, 1e-9)], label, ys, unit: binary ? 1024 ** Math.floor(Math.log2(Math.max(highest, 1)) / 10) : 1, xs: (value) => dlsim.seconds(value, span) });
  const { picture, X, Y } = axes;
  // behind the curves, which may be as high
  if (most) picture.append(dlsim.svg("line", { class: "limit", x1: axes.left, x2: axes.width - axes.right, y1: Y(most), y2: Y(most) }));
  for (const [name, curve] of Object.entries(data.curves).reverse()) {
    if (curve.mean) {
      const at = (k) => X(data.begin + ((k + 0.5) * span) / curve.mean.length);
      const line = (values) => values.map((value, k) => `${at(k).toFixed(1)} ${Y(value).toFixed(1)}`);
      picture.append(dlsim.svg("path", { class: `band ${name}`, d: `M${[...line(curve.high), ...line(curve.low).reverse()].join("L")}Z` }));
      picture.append(dlsim.svg("path", { class: `line ${name}`, d: `M${line(curve.mean).join("L")}` }));
    } else {
      const path = curve.times.map((time, k) => `${k ? "H" : "M"}${X(time).toFixed(1)}${k ? "V" : " "}${Y(curve.counts[k]).toFixed(1)}`);
      picture.append(dlsim.svg("path", { class: `line ${name}`, d: `${path.join("")}H${X(data.end).toFixed(1)}` }));
    }
  }
};
