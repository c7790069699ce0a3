// The page: what is set goes to the server, what comes back is drawn. All of the state is in the link.
"use strict";
(async function () {
  const $ = dlsim.element;
  const by = (id) => document.getElementById(id);
  const token = new URLSearchParams(location.search).get("token");
  let state = { preset: "", toml: "", changes: {}, seed: 0, zoom: null, rank: 0 };
  let kept = null; // the state that was kept as A
  let view = "explore";
  let last = null; // the last good answer
  let moved = null; // when something was last moved, for who measures
  dlsim.timing = [];

  async function ask(question, body) {
    const answer = await fetch(`/ask/${question}`, {
      method: "POST", headers: { "x-token": token, "content-type": "application/json" }, body: JSON.stringify(body),
    });
    if (!answer.ok) throw new Error(await answer.text());
    return answer.json();
  }

  const say = (text) => { by("said").textContent = text; };
  addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    say(/fetch/i.test(String(event.reason)) ? "dlsim serve has ended: start it again in its terminal." : String(event.reason));
  });

  // ---- the state in the link: JSON, deflated, in letters that a link may have
  async function packed(value) {
    const stream = new Blob([JSON.stringify(value)]).stream().pipeThrough(new CompressionStream("deflate-raw"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  }
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return JSON.parse(await new Response(stream).text());
  }
  let own = ""; // the hash that this page itself has set
  async function remember() {
    own = `#s=${await packed({ state, kept, view })}`;
    history.replaceState(null, "", own);
  }
  async function recall() {
    if (!location.hash.startsWith("#s=") || location.hash === own) return false;
    const found = await unpacked(location.hash.slice(3));
    ({ state, kept, view } = { view: "explore", kept: null, ...found });
    return true;
  }

  // ---- one question at a time; what is set meanwhile is asked next, and the last one stays
  let busy = false, again = false, settled = null;
  async function refresh() {
    remember();
    if (busy) { again = true; return; }
    busy = true;
    clearTimeout(settled);
    try {
      do {
        again = false;
        const from = moved;
        const found = await ask("run", { ...state, brief: true });
        show(found);
        if (from !== null) requestAnimationFrame(() => dlsim.timing.push(performance.now() - from));
      } while (again);
    } finally { busy = false; }
    settled = setTimeout(afterwards, 350);
  }

  function show(found) {
    by("refused").classList.toggle("hidden", !found.error);
    for (const wrong of document.querySelectorAll(".wrong")) wrong.textContent = "";
    if (found.error) {
      by("refused").textContent = `${found.error}`;
      const field = found.key && [...document.querySelectorAll(".control")].find((each) => each.dataset.key === found.key || each.dataset.key.startsWith(`${found.key}.`));
      if (field) field.querySelector(".wrong").textContent = found.error;
      return;
    }
    last = found;
    document.title = found.title ? `${found.title} · dlsim` : "dlsim";
    by("setup").textContent = [found.title, found.setup].filter(Boolean).join(": ");
    by("sentences").replaceChildren(...found.sentences.map((text) => $("p", {}, text)));
    by("figures").replaceChildren(...found.figures.map(([name, text]) => $("div", {}, $("dt", {}, name), $("dd", {}, text))));
    ranks(found.ranks, found.rank);
    by("edge").classList.toggle("hidden", !found.edge);
    by("brief").textContent = found.figures.slice(0, 3).map(([name, text]) => `${name} ${text}`).join(" · ");
    by("summary").replaceChildren($("tbody", {}, ...found.summary.map(([name, text]) => $("tr", {}, $("th", { scope: "row" }, name), $("td", {}, text)))));
    by("code").textContent = found.code;
    by("toml").textContent = found.toml.length > 20000 ? `${found.toml.slice(0, 20000)}\n...` : found.toml;
    fields(found.controls);
    accounted(found.account);
    draw();
  }

  // which rank of a job is shown
  function ranks(count, rank) {
    by("of-rank").classList.toggle("hidden", !count);
    for (const only of document.querySelectorAll(".of-job")) only.classList.toggle("hidden", !count);
    const list = by("rank");
    if (list.options.length !== count)
      list.replaceChildren(...Array.from({ length: count }, (_, k) => $("option", { value: k }, `rank ${k}`)));
    list.value = String(rank);
    by("ranks").textContent = `of ${count}`;
  }
  by("rank").addEventListener("change", () => { state.rank = Number(by("rank").value); state.zoom = null; refresh(); });

  const colours = { busy: "var(--step)" };
  const causes = ["var(--wait)", "var(--credit)", "#cc79a7", "var(--fetch)", "#999", "var(--ready)", "#777"];
  function accounted(rows) {
    const colour = (name, k) => colours[name] || causes[(k - 1) % causes.length];
    by("account").replaceChildren(
      $("div", { class: "bar", role: "img", "aria-label": "where the time of the accelerator goes" },
        ...rows.map(([name, share], k) => $("i", { style: `width:${100 * share}%;background:${colour(name, k)}`, title: name }))),
      $("ul", {}, ...rows.map(([name, , text], k) => $("li", {}, $("i", { style: `background:${colour(name, k)}` }), `${k ? "idle: " : ""}${name} ${text}`))));
  }

  function draw() {
    if (!last || view !== "explore") return;
    dlsim.gantt(by("lanes"), last.lanes, { zoomed: (low, high) => zoom([low, high]) });
    dlsim.levels(by("occupancy"), last.occupancy, { label: "Batches ready, and sent but not returned, over time", height: 120 });
    dlsim.levels(by("memory"), last.memory, { label: "Bytes of batches on their way, over time", ys: dlsim.bytes, binary: true, height: 160 });
    waiting(last.waits);
  }

  function waiting({ shares, waits }) {
    const most = Math.max(waits.at(-1), 1e-6);
    const { picture, X, Y } = dlsim.axes(by("waits"), { height: 160, left: 44, x: [0, most], y: [0, 1], xs: (value) => dlsim.seconds(value, most),
      ys: (value) => `${Math.round(100 * value)} %`, label: "The share of batches that are waited for no longer than this" });
    picture.append(dlsim.svg("path", { class: "waits", d: `M${shares.map((share, k) => `${X(waits[k]).toFixed(1)} ${Y(share).toFixed(1)}`).join("L")}` }));
  }

  // ---- zoom
  async function zoom(stretch) {
    state.zoom = stretch;
    remember();
    const found = await ask("zoom", state);
    if (!found.error && last) { Object.assign(last, found); draw(); }
  }
  for (const button of document.querySelectorAll("[data-zoom]")) button.addEventListener("click", () => {
    const { begin, end } = last.lanes, middle = (begin + end) / 2, half = (end - begin) / 2;
    zoom({ in: [middle - half / 2, middle + half / 2], out: [middle - 2 * half, middle + 2 * half],
      back: [begin - half, end - half], on: [begin + half, end + half], edge: last.edge, all: null }[button.dataset.zoom]);
  });

  // ---- controls
  let built = "";
  function fields(controls) {
    const shape = JSON.stringify(controls.map(({ key, kind }) => [key, kind])) + state.preset + state.toml;
    if (shape !== built) { built = shape; build(controls); }
    for (const control of controls) {
      const box = by(`control-${control.key}`);
      const inside = box.querySelector("input, select");
      if (control.kind === "switch") inside.checked = control.value === "true";
      else if (control.kind === "list") inside.value = control.value;
      else if (document.activeElement !== inside || !busy || !again) {
        if (!inside.stops.includes(control.value)) inside.stops = control.stops;
        inside.max = inside.stops.length - 1;
        if (!again) inside.value = inside.stops.indexOf(control.value);
        if (!again) label(inside);
      }
      box.querySelector("label").classList.toggle("changed", control.key in state.changes);
    }
    const known = new Set(controls.map(({ key }) => key));
    by("others").replaceChildren(...Object.entries(state.changes).filter(([key]) => !known.has(key)).map(([key, value]) =>
      $("p", { class: "row" }, $("code", {}, `${key} = ${value}`), $("button", { type: "button", onclick: () => { delete state.changes[key]; refresh(); } }, "undo"))));
  }

  function label(slider) {
    const text = slider.stops[slider.value];
    slider.output.textContent = text === "none" && slider.dataset.key === "loader.prefetch_factor" ? "default" : text;
    slider.setAttribute("aria-valuetext", text);
  }

  function change(key, value) {
    moved = performance.now();
    state.changes[key] = value;
    refresh();
  }

  function build(controls) {
    const groups = Map.groupBy ? Map.groupBy(controls, ({ group }) => group)
      : controls.reduce((all, each) => all.set(each.group, [...(all.get(each.group) || []), each]), new Map());
    const made = [...groups].map(([name, inside]) => $("fieldset", {}, $("legend", {}, name), ...inside.map(one)));
    const key = $("input", { type: "text", placeholder: "costs.worker_start", "aria-label": "dotted key", spellcheck: "false" });
    const value = $("input", { type: "text", placeholder: "0.5 s", "aria-label": "value", spellcheck: "false" });
    const set = () => { if (key.value.trim()) { change(key.value.trim(), value.value.trim()); key.value = value.value = ""; } };
    for (const each of [key, value]) each.addEventListener("keydown", (event) => { if (event.key === "Enter") { event.preventDefault(); set(); } });
    const seed = $("input", { type: "number", min: 0, value: state.seed, "aria-label": "seed",
      onchange: () => { state.seed = Math.max(0, Math.floor(Number(seed.value)) || 0); moved = performance.now(); refresh(); } });
    by("controls").replaceChildren(...made,
      $("fieldset", {}, $("legend", {}, "Any other key"), $("div", { class: "keyed" }, key, value,
        $("button", { type: "button", onclick: set }, "Set")), $("div", { id: "others" })),
      $("fieldset", {}, $("legend", {}, "Chance"), $("div", { class: "control", "data-key": "seed" }, $("label", {}, "seed", seed), $("p", { class: "wrong" }))),
      $("p", { class: "row" }, $("button", { type: "button", onclick: () => { state.changes = {}; state.zoom = null; built = ""; refresh(); } }, "Undo all changes")));
  }

  function one(control) {
    const id = `control-${control.key}`, wrong = $("p", { class: "wrong", id: `${id}-wrong`, role: "alert" });
    const common = { "data-key": control.key, id: `${id}-input`, "aria-describedby": wrong.id };
    const box = (kind, ...inside) => $("div", { class: `control ${kind}`, id, "data-key": control.key, title: control.meaning }, ...inside, wrong);
    if (control.kind === "switch") {
      const tick = $("input", { ...common, type: "checkbox", onchange: () => change(control.key, String(tick.checked)) });
      return box("switch", $("label", {}, tick, control.label));
    }
    if (control.kind === "list") {
      const list = $("select", { ...common, onchange: () => change(control.key, list.value) },
        ...control.stops.map((stop) => $("option", { value: stop }, stop)));
      return box("list", $("label", {}, control.label, list));
    }
    const output = $("output", { for: common.id });
    const slider = $("input", { ...common, type: "range", min: 0, max: control.stops.length - 1, step: 1,
      oninput: () => { label(slider); change(control.key, slider.stops[slider.value]); } });
    slider.stops = control.stops;
    slider.output = output;
    return box("slider", $("label", { for: common.id }, control.label, output), slider);
  }

  // ---- what takes longer, once nothing moves any more
  let round = 0;
  async function afterwards() {
    const mine = ++round;
    const still = () => mine === round && !busy;
    if (view !== "explore" || !last) return;
    if (last.more) {
      const found = await ask("run", state);
      if (!still()) return;
      show(found);
    }
    await versus(still);
    if (still()) await against(still);
  }

  let over = "loader.num_workers"; // what throughput is drawn against
  by("over").addEventListener("change", () => { over = by("over").value; afterwards(); });
  async function against(still) {
    const set = (last.controls.find(({ key }) => key === over) || {}).value;
    const now = Number(set === "none" ? 2 : set); // torch's default
    const usual = over === "loader.num_workers" ? [0, 1, 2, 4, 8, now - 1, now, now + 1, 2 * now] : [1, 2, 3, 4, 6, 8, now];
    const least = over === "loader.num_workers" ? 0 : 1;
    const values = [...new Set(usual)].filter((value) => value >= least && value <= Math.max(2 * now, 8)).sort((a, b) => a - b);
    const said = by("workers-said");
    said.textContent = "Other values are being simulated.";
    let found = null;
    for (let count = 1; count <= values.length; count++) {
      found = await ask("against", { state, key: over, values: values.slice(0, count) });
      if (!still()) return;
      if (found.error) { said.textContent = found.error; by("workers").replaceChildren(); return; }
      curve(found.points, now, values.at(-1));
    }
    said.textContent = `Now: ${(found.points.find(({ value }) => value === now) || { text: "-" }).text}; the ring is where you are. ${found.enough}`;
  }

  function curve(points, now, most) {
    const top = Math.max(...points.map((point) => point.mean + point.half), 1e-9);
    const { picture, X, Y } = dlsim.axes(by("workers"), { height: 180, left: 54, x: [0, most], y: [0, 1.08 * top], xs: (value) => (Number.isInteger(value) ? String(value) : ""),
      ys: (value) => value.toLocaleString("en"), label: `Throughput in samples a second against ${over.slice(7)}: ${points.map((p) => `${p.value}: ${p.text}`).join("; ")}` });
    picture.append(dlsim.svg("path", { class: "line ready", d: `M${points.map((p) => `${X(p.value)} ${Y(p.mean)}`).join("L")}` }));
    for (const p of points) {
      picture.append(dlsim.svg("line", { class: "bar-line", x1: X(p.value), x2: X(p.value), y1: Y(p.mean - p.half), y2: Y(p.mean + p.half) }));
      picture.append(dlsim.svg("circle", { class: "mark", cx: X(p.value), cy: Y(p.mean), r: 3.5 }));
      if (p.value === now) picture.append(dlsim.svg("circle", { class: "ring", cx: X(p.value), cy: Y(p.mean), r: 8 }));
    }
  }

  // ---- A beside B
  async function versus(still) {
    for (const id of ["swap", "forget"]) by(id).classList.toggle("hidden", !kept);
    if (!kept) { by("difference").textContent = ""; by("interval").replaceChildren(); return; }
    const found = await ask("versus", { a: kept, b: state });
    if (!still()) return;
    by("difference").textContent = found.error || found.text;
    if (found.error || found.mean == null) return by("interval").replaceChildren();
    const low = found.low ?? found.mean, high = found.high ?? found.mean;
    const reach = 1.15 * Math.max(Math.abs(low), Math.abs(high), 0.01);
    const { picture, X, height } = dlsim.axes(by("interval"), { height: 60, left: 14, x: [-reach, reach], y: [0, 1], xs: (value) => `${Number((100 * value).toPrecision(3))} %`,
      label: "The difference in samples a second, B to A, with its 95 % interval" });
    const middle = (height - 18) / 2;
    picture.append(dlsim.svg("line", { class: "zero", x1: X(0), x2: X(0), y1: 0, y2: height - 18 }),
      dlsim.svg("line", { class: "bar-line", x1: X(low), x2: X(high), y1: middle, y2: middle }), dlsim.svg("circle", { class: "mark", cx: X(found.mean), cy: middle, r: 5 }));
  }
  by("keep").addEventListener("click", () => {
    kept = structuredClone(state);
    by("kept").textContent = `A: ${last.setup}. Now change something.`;
    remember();
    afterwards();
  });
  by("forget").addEventListener("click", () => {
    kept = null;
    by("kept").textContent = "Keep what is shown as A, change something, and see the difference.";
    remember();
    afterwards();
  });
  by("swap").addEventListener("click", () => { state = structuredClone(kept); built = ""; refresh(); });

  // ---- what is copied
  async function copy(text, said) {
    try { await navigator.clipboard.writeText(text); say(said); } catch { say(text); }
  }
  for (const button of document.querySelectorAll("[data-copy]")) button.addEventListener("click", () =>
    copy(button.dataset.copy === "toml" ? last.toml : last.code, "Copied."));
  by("link").addEventListener("click", async () => {
    await remember();
    const link = `${location.origin}/${own}`;
    dlsim.copied = link;
    copy(link, `Copied. It holds all that is set here, and no token; who has it opens it with: dlsim serve '${link.slice(0, 40)}…'`);
  });

  // ---- scenarios: ours, or a file that is opened or dropped
  function begin(changed) {
    state = { preset: "", toml: "", changes: {}, seed: 0, zoom: null, rank: 0, ...changed };
    built = "";
    moved = performance.now();
    say("");
    refresh().then(() => { if (view === "film") reel(0); });
  }
  async function opened(file) {
    if (!file) return;
    by("preset").value = "";
    begin({ toml: (await file.text()).replace(/^\uFEFF/, "") });
  }
  by("file").addEventListener("change", () => { opened(by("file").files[0]); by("file").value = ""; });
  by("preset").addEventListener("change", () => { if (by("preset").value) begin({ preset: by("preset").value }); });
  addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    opened(event.dataTransfer.files[0]);
  });

  // ---- the film, and the lessons
  let film = null, taught = null;
  async function reel(batch) {
    const found = await ask("film", { state, batch });
    if (found.error) return say(found.error);
    let picture = null;
    film = dlsim.film(by("reel"), found.film, rules, {
      shown: (frame) => picture && picture.at(frame ? frame.at : found.film.begin),
      elsewhere: (wanted) => { if (wanted >= 0 && wanted < last.batches) reel(wanted).then(() => film.jump(wanted)); },
    });
    if (!found.film.whole) by("reel").prepend($("p", { class: "quiet" }, `Batches ${found.film.first} to ${found.film.last} of ${last ? last.batches : ""}: jump to any other.`));
    const drawn = () => { picture = dlsim.gantt(film.strip, found.lanes, { picked: (time) => {
      const later = found.film.frames.findIndex((frame) => frame.at >= time);
      film.pause();
      film.go(later < 0 ? film.count - 1 : later);
    } }); };
    drawn();
    for (const number of by("reel").querySelectorAll("input[type=number]")) { number.min = 0; number.max = last ? last.batches - 1 : found.film.last; }
  }
  async function teach(name) {
    const found = await ask("lesson", { name });
    by("lesson").replaceChildren($("header", {}, $("h1", {}, found.title), $("p", {}, found.about)));
    for (const button of by("syllabus").children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
    taught = dlsim.lesson(by("lesson"), found);
  }
  dlsim.listening = true;
  document.addEventListener("keydown", (event) => {
    if (view === "film" && film) film.key(event);
    if (view === "lessons" && taught && taught.film) taught.film.key(event);
  });

  async function turn(to) {
    view = to;
    for (const name of ["explore", "film", "lessons"]) by(name).classList.toggle("hidden", name !== to);
    for (const button of document.querySelectorAll("[data-view]")) button.setAttribute("aria-pressed", String(button.dataset.view === to));
    if (film) film.pause();
    if (taught) taught.film.pause();
    remember();
    if (to === "explore") { draw(); afterwards(); }
    if (to === "film") await reel(0);
    if (to === "lessons" && !taught) await teach(start.lessons[0].name);
  }
  for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => turn(button.dataset.view));
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; draw(); if (dlsim.redraw && view === "lessons") dlsim.redraw(); } });
  addEventListener("hashchange", async () => { if (await recall()) { built = ""; await refresh(); turn(view); } });

  // ---- the beginning
  const start = await ask("start", {});
  const rules = start.rules;
  by("preset").append($("option", { value: "" }, "your own"), ...start.presets.map(({ name, title }) => $("option", { value: name }, title)));
  by("syllabus").append(...start.lessons.map(({ name, title }) =>
    $("button", { type: "button", "data-name": name, onclick: () => teach(name) }, title)));
  if (!(await recall())) {
    const toml = await (await fetch("/first", { headers: { "x-token": token } })).text();
    state = toml ? { ...state, toml } : { ...state, preset: "imagenet_a100" };
  }
  by("preset").value = state.preset;
  await refresh();
  if (view !== "explore") await turn(view);
  document.documentElement.dataset.ready = "yes";
})();
