// The film: tokens move between places, one event at a time. It shows what it is given, and computes
// no schedule of its own.
"use strict";
var dlsim = globalThis.dlsim || {};
globalThis.dlsim = dlsim;

dlsim.element = function (name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child != null));
  return made;
};

dlsim.film = function (root, film, rules, options = {}) {
  const $ = dlsim.element;
  const still = matchMedia("(prefers-reduced-motion: reduce)");
  const spots = new Map(); // place -> {box, list, status}
  const tokens = new Map(); // batch -> element
  let at = -1; // the frame that was shown last; -1: before the first
  let timer = null;
  let speed = 1;

  const spot = (place, title, kind, note) => {
    const list = $("ul", { class: "tokens", "aria-label": title });
    const status = $("p", { class: "status" }, note || "");
    const box = $("section", { class: `spot ${kind}` }, $("div", { class: "head" }, $("h3", {}, title), status), list);
    spots.set(place, { box, list, status });
    return box;
  };

  const stage = $("div", { class: film.workers ? "stage" : "stage alone" });
  if (film.workers) {
    const sends = $("section", { class: "spot process sends" }, $("h3", {}, "Main process: sends"));
    const credit = $("p", { class: "status" });
    spots.set("sends", { box: sends, status: credit });
    sends.append(credit, $("p", {}, "One message holds all indices of a batch."));
    const crew = $("div", { class: "crew" });
    for (let worker = 0; worker < film.workers; worker++)
      crew.append($("div", { class: "hand" },
        spot(`index ${worker}`, `Index queue ${worker}`, "index"),
        spot(`worker ${worker}`, `Worker ${worker}`, "process")));
    stage.append(sends, crew, spot("results", "Result queue", "results"));
  }
  const takes = $("div", { class: "takes" });
  const held = film.pins ? "Pinned, until wanted" : "Kept until wanted";
  if (film.workers) takes.append(spot("kept", held, "kept"));
  takes.append(spot("main", film.workers ? "Main process: next()" : "Main process", "process"));
  stage.append(takes, spot("device", film.device === "accelerator" ? "Accelerator" : "Training", "process device"));
  const finished = $("p", { class: "done" });
  spots.get("device").box.append(finished);

  const clock = $("span", { class: "clock" });
  const say = $("p", { class: "say" });
  const why = $("p", { class: "why" });
  const rule = $("p", { class: "rule" });
  const told = $("div", { class: "told", role: "status", "aria-live": "polite" }, clock, say, why);
  const count = film.frames.length;
  const place = $("input", {
    type: "range", min: 0, max: count, value: 0, "aria-label": "event",
    oninput: () => { pause(); go(Number(place.value) - 1); },
  });
  const playing = $("button", { type: "button", class: "main play", onclick: () => toggle() }, "▶ Play");
  const jumpTo = $("input", { type: "number", min: film.first, max: film.last, value: film.first,
    onkeydown: (event) => { if (event.key === "Enter") jump(Number(jumpTo.value)); } });
  const pace = $("select", { "aria-label": "speed", onchange: () => { speed = Number(pace.value); } },
    ...[[0.5, "half speed"], [1, "normal speed"], [2, "2 x"], [4, "4 x"], [10, "10 x"]].map(([value, name]) =>
      $("option", { value, selected: value === 1 }, name)));
  const button = (name, label, action) =>
    $("button", { type: "button", "aria-label": label, title: label, onclick: () => { pause(); action(); } }, name);
  const controls = $("div", { class: "controls", role: "group", "aria-label": "film" },
    button("Start", "to the beginning (Home)", () => go(-1)),
    button("◀ Back", "one event back (left arrow)", () => go(at - 1)),
    playing,
    button("Next ▶", "one event on (right arrow)", () => go(at + 1)),
    pace,
    $("label", {}, "batch", jumpTo),
    button("Jump", "to the moment at which the batch is sent", () => jump(Number(jumpTo.value))));
  const list = $("ol", { class: "events" });
  const events = $("details", {
    ontoggle: () => { if (events.open && !list.children.length) fill(); mark(); },
  }, $("summary", {}, `All ${count} events as text`), list);
  const legend = $("ul", { class: "legend", "aria-label": "colours" }, ...[
    ["credit", "sent"], ["fetch", "being fetched"], ["ready", "ready"], ["step", "trained on"], ["wait", "training waits"],
    ...(film.meets ? [["barrier", "waits for other ranks"]] : []),
  ].map(([name, text]) => $("li", {}, $("i", { style: `background:var(--${name})` }), text)));
  const strip = $("div", { class: "strip" });
  root.replaceChildren($("div", { class: "film" }, stage, controls, place, told, rule, strip, legend, events));

  function fill() {
    list.append(...film.frames.map((frame, index) =>
      $("li", {}, $("button", { type: "button", onclick: () => { pause(); go(index); } },
        `${frame.time}: ${frame.say}. ${frame.why}`))));
  }

  function mark() {
    for (const item of list.querySelectorAll("[aria-current]")) item.removeAttribute("aria-current");
    if (!events.open || at < 0) return;
    const item = list.children[at];
    item.setAttribute("aria-current", "step");
    list.scrollTop = item.offsetTop - list.offsetTop - list.clientHeight / 2;
  }

  // where everything is after frame `index`
  function state(index) {
    const places = new Map(film.start.map((move) => [move.batch, move]));
    const done = [];
    for (const frame of film.frames.slice(0, index + 1))
      for (const move of frame.moves) {
        const before = places.get(move.batch);
        if (!before || before.to !== move.to) places.delete(move.batch); // to the end of the line
        if (move.to !== "gone") places.set(move.batch, move);
        else if (before && before.to === "device") done.push(move.batch);
      }
    return { places, done };
  }

  function go(index) {
    index = Math.max(-1, Math.min(count - 1, index));
    const frame = film.frames[index];
    const one = Math.abs(index - at) === 1;
    at = index;
    const { places, done } = state(index);
    const moved = new Set((frame ? frame.moves : []).map((move) => move.batch));
    const before = new Map([...tokens].map(([batch, token]) => [batch, token.getBoundingClientRect()]));
    for (const [batch, token] of tokens)
      if (!places.has(batch)) { token.remove(); tokens.delete(batch); }
    for (const [batch, move] of places) {
      let token = tokens.get(batch);
      if (!token) tokens.set(batch, (token = $("li", {})));
      token.className = `token at-${move.to.split(" ")[0]} ${move.kind || ""} ${moved.has(batch) ? "moved" : ""}`;
      const shown = move.kind === "end" ? "nothing more" : move.kind === "error" ? `${batch} error` : `${batch}`;
      token.replaceChildren($("span", { class: "sr" }, "batch "), shown, ...(move.note ? [$("small", {}, move.note)] : []));
      (spots.get(move.to) || spots.get("main")).list.append(token);
    }
    const main = frame ? frame.main : film.main;
    const credit = frame ? frame.credit : film.credit;
    const waits = main === "in next()" && !spots.get("main").list.children.length;
    for (const [name, { box, list: inside, status }] of spots) {
      if (name.startsWith("worker")) {
        status.textContent = inside.children.length ? "" : "idle";
        box.classList.toggle("waiting", false);
      }
      if (name === "device") status.textContent = inside.children.length ? "" : "idle";
      if (name === "main") {
        status.textContent = waits ? "waits in next()" : main;
        box.classList.toggle("waiting", waits);
      }
      if (name === "sends") status.textContent = `sent, not returned: ${credit} of at most ${film.window}`;
    }
    const last = done.slice(-6).join(" ");
    finished.textContent = done.length ? `done: ${done.length > 6 ? "… " : ""}${last}` : "";
    if (one && !still.matches) animate(before);
    clock.textContent = frame ? frame.time : "";
    const begun = frame && (frame.say.startsWith("next()") ? frame.say : `${frame.say[0].toUpperCase()}${frame.say.slice(1)}`);
    say.textContent = frame ? `${begun}.` : "Before it begins.";
    why.textContent = frame ? frame.why : "Press Play, or go event by event with the arrow keys.";
    const law = frame && rules[frame.rule];
    rule.replaceChildren(...(law ? [$("b", {}, `Rule ${law.number}. `), law.text.replace(/[*`]/g, ""), ` (docs/model.md, line ${law.line})`] : []));
    place.value = at + 1;
    place.setAttribute("aria-valuetext", frame ? `event ${at + 1} of ${count}: ${frame.say}` : "the beginning");
    mark();
    if (options.shown) options.shown(frame, at);
    if (at === count - 1) pause();
  }

  function animate(before) {
    const took = Math.min(450, 380 / speed);
    for (const [batch, token] of tokens) {
      const old = before.get(batch), now = token.getBoundingClientRect();
      if (!old) { token.animate([{ opacity: 0, transform: "scale(.5)" }, {}], { duration: took }); continue; }
      const x = old.left - now.left, y = old.top - now.top;
      if (x || y) token.animate([{ transform: `translate(${x}px, ${y}px)` }, { transform: "none" }],
        { duration: took, easing: "cubic-bezier(.3,.7,.2,1)" });
    }
  }

  function toggle() { if (timer) pause(); else play(); }

  function play() {
    if (at === count - 1) go(-1);
    told.setAttribute("aria-live", "off"); // too fast to be read out
    playing.textContent = "⏸ Pause";
    const tick = () => { go(at + 1); if (timer) timer = setTimeout(tick, 1100 / speed); };
    timer = setTimeout(tick, 100);
  }

  function pause() {
    clearTimeout(timer);
    timer = null;
    told.setAttribute("aria-live", "polite");
    playing.textContent = "▶ Play";
  }

  function jump(batch) {
    pause();
    const found = film.frames.findIndex((frame) =>
      frame.moves.some((move) => move.batch === batch && (move.to.startsWith("index") || !film.workers)));
    if (found >= 0) go(found);
    else if (options.elsewhere) options.elsewhere(batch);
    return found >= 0;
  }

  function key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const action = { ArrowRight: () => { pause(); go(at + 1); }, ArrowLeft: () => { pause(); go(at - 1); },
      Home: () => { pause(); go(-1); }, End: () => { pause(); go(count - 1); } }[event.key]
      || (event.key === " " && !/^(BUTTON|SUMMARY|A)$/.test(event.target.tagName) && toggle);
    if (action) { event.preventDefault(); action(); }
  }

  go(-1);
  return { go, jump, play, pause, key, strip, get at() { return at; }, count };
};
