"use strict";
// Two segments on one clock: channels as lines, a cursor that runs through both, keys for the answer.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 1000, HEIGHT = 100, PAD = 6, LEAST_SECONDS = 2, MOST_SECONDS = 8, REST_SECONDS = 0.6;
  const KEYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "equal", ArrowDown: "skip" };
  const find = (id) => document.getElementById(id);
  const play = find("play"), cursor = find("cursor");
  let view = null, plots = [], isPlaying = true, isBusy = false, began = 0, steps = 1;

  const make = (name, attributes, parent) => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (parent) parent.append(node);
    return node;
  };
  const short = (value) => Number(value.toPrecision(3)).toString();

  // A step is as wide on both sides, so that a shorter segment ends earlier.
  const x = (step) => (steps > 1 ? (step / (steps - 1)) * WIDTH : WIDTH / 2);
  const line = (channel, series, first, last) => {
    const range = channel.high - channel.low || 1;
    const points = [];
    for (let k = first; k <= last && k < series.length; k += 1) {
      const y = HEIGHT - PAD - ((series[k] - channel.low) / range) * (HEIGHT - 2 * PAD);
      points.push(`${points.length ? "L" : "M"}${x(k).toFixed(1)} ${y.toFixed(1)}`);
    }
    return points.join("");
  };

  function draw() {
    const rows = find("plots");
    rows.replaceChildren();
    plots = [];
    steps = Math.max(view.pair.left.length, view.pair.right.length);
    view.channels.forEach((channel, index) => {
      const name = document.createElement("p");
      name.className = "channel";
      const range = document.createElement("small");
      range.textContent = ` ${channel.is_action ? "action, " : ""}${short(channel.low)} to ${short(channel.high)}`;
      name.append(channel.name, range);
      const row = document.createElement("div");
      row.className = "row";
      for (const side of ["left", "right"]) {
        const series = view.pair[side].series[index];
        const figure = document.createElement("figure");
        const box = make("svg", {
          class: channel.is_action ? "plot action" : "plot", viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
          preserveAspectRatio: "none", role: "img",
          "aria-label": `${channel.name}, ${side}: from ${short(series[0])} to ${short(series[series.length - 1])}`,
        });
        make("path", { class: "ahead", d: line(channel, series, 0, series.length - 1) }, box);
        const past = make("path", {}, box);
        const mark = make("line", { class: "cursor", y1: 0, y2: HEIGHT }, box);
        figure.append(box);
        row.append(figure);
        plots.push({ channel, series, past, mark });
      }
      rows.append(name, row);
    });
    for (const side of ["left", "right"]) {
      const one = view.pair[side];
      find(`${side}-place`).textContent = `episode ${one.episode}, steps ${one.start} to ${one.start + one.length - 1}`;
    }
    cursor.max = String(steps - 1);
    began = performance.now();
    show(isPlaying ? 0 : steps - 1);
  }

  function show(step) {
    cursor.value = String(step);
    find("step").textContent = `${step + 1} of ${steps}`;
    for (const { channel, series, past, mark } of plots) {
      past.setAttribute("d", line(channel, series, 0, step));
      mark.setAttribute("x1", x(step));
      mark.setAttribute("x2", x(step));
    }
  }

  function tick(now) {
    if (isPlaying && view && view.pair) {
      const known = view.pair.left.seconds ?? steps / 20;
      const length = Math.min(Math.max(known, LEAST_SECONDS), MOST_SECONDS);
      const part = (((now - began) / 1000) % (length + REST_SECONDS)) / length;
      const step = Math.min(Math.floor(part * steps), steps - 1);
      if (step >= 0 && String(step) !== cursor.value) show(step);
    }
    requestAnimationFrame(tick);
  }

  function setPlaying(value) {
    isPlaying = value;
    play.textContent = value ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(value));
    if (value) began = performance.now();
  }

  function update(next) {
    view = next;
    find("progress").textContent = `${view.answered} of ${view.total} answered`;
    find("bar").max = Math.max(view.total, 1);
    find("bar").value = view.answered;
    const isOver = view.pair === null;
    find("main").hidden = find("answers").hidden = isOver;
    find("done").hidden = !isOver;
    if (!isOver) draw();
  }

  async function ask(path, body) {
    const problem = find("problem");
    isBusy = true;
    for (const button of document.querySelectorAll("#answers button")) button.disabled = true;
    try {
      const options = body && {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      };
      const response = await fetch(path, options);
      const values = await response.json();
      if (!response.ok) throw new Error(values.problem);
      problem.hidden = true;
      update(values);
    } catch (error) {
      problem.textContent = error instanceof TypeError
        ? "mbrl label does not answer: it has ended. Start it again; what was answered is kept." : error.message;
      problem.hidden = false;
    } finally {
      isBusy = false;
      for (const button of document.querySelectorAll("#answers button")) button.disabled = false;
    }
  }

  function answer(label) {
    if (!isBusy && view && view.pair) ask("/api/answer", { index: view.pair.index, label });
  }

  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target === cursor) return; // arrows move the slider there
    if (event.key in KEYS) {
      event.preventDefault();
      answer(KEYS[event.key]);
    } else if (event.key === " " && event.target.tagName !== "BUTTON") {
      event.preventDefault();
      setPlaying(!isPlaying);
    }
  });
  find("answers").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) answer(button.dataset.label);
  });
  play.addEventListener("click", () => setPlaying(!isPlaying));
  cursor.addEventListener("input", () => { setPlaying(false); show(Number(cursor.value)); });
  // Who asks for less motion sees the whole segments at once.
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(false);
  requestAnimationFrame(tick);
  ask("/api/next");
})();
