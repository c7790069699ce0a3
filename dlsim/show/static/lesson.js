// A lesson: its films, and the questions about them.
"use strict";
dlsim.lesson = function (root, data) {
  const $ = dlsim.element;
  const screen = $("section", { class: "card", "aria-label": "film" });
  const stage = $("div", {});
  const tabs = $("div", { class: "tabs", role: "group", "aria-label": "films" });
  let shown = null;
  let picture = null;

  function show(index, batch) {
    const { film, lanes } = data.films[index];
    if (shown) shown.pause();
    picture = null;
    shown = dlsim.film(stage, film, data.rules, { shown: (frame) => picture && picture.at(frame ? frame.at : film.begin) });
    const draw = () => {
      picture = dlsim.gantt(shown.strip, lanes, { picked: (time) => {
        const later = film.frames.findIndex((frame) => frame.at >= time);
        shown.pause();
        shown.go(later < 0 ? film.frames.length - 1 : later);
      } });
      const frame = film.frames[shown.at];
      picture.at(frame ? frame.at : film.begin);
    };
    draw();
    dlsim.redraw = draw;
    [...tabs.children].forEach((tab, k) => tab.setAttribute("aria-pressed", String(k === index)));
    if (batch != null) shown.jump(batch);
  }

  data.films.forEach((each, index) => tabs.append(
    $("button", { type: "button", onclick: () => show(index) }, each.name)));
  if (data.films.length > 1) screen.append(tabs);
  screen.append(stage);
  const questions = $("section", { class: "card" }, $("h2", {}, "Questions"),
    ...data.questions.map((each, k) => $("details", { class: "question" },
      $("summary", {}, `${k + 1}. ${each.ask}`),
      $("p", {}, each.answer),
      $("button", { type: "button", onclick: () => {
        show(each.film, each.batch);
        screen.scrollIntoView({ behavior: "smooth" });
      } }, "Look at it in the film"))));
  root.append(screen);
  if (data.questions.length) root.append(questions);
  show(0);
  if (!dlsim.listening) {
    dlsim.listening = true;
    document.addEventListener("keydown", (event) => shown && shown.key(event));
    let width = innerWidth;
    addEventListener("resize", () => {
      if (innerWidth !== width && dlsim.redraw) { width = innerWidth; dlsim.redraw(); }
    });
  }
  return { show, get film() { return shown; } };
};
