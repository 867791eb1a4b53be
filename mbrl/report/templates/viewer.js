(() => {
  const root = document.getElementById("viewer");
  const data = JSON.parse(root.querySelector(".viewer-data").textContent);
  const LEVELS = 9999, WIDE = 1000, TALL = 100, EDGE = 4;
  const find = (selector) => root.querySelector(selector);
  const choose = find('[data-what="episode"]'), group = find('[data-what="group"]'), whole = find('[data-what="whole"]');
  const rows = find(".viewer-rows"), status = find(".viewer-status"), notes = find(".viewer-notes"), legend = find(".viewer-legend"), axis = find(".viewer-axis");
  const number = (value) => value === null ? "none" : String(Number(value.toPrecision(4)));
  const make = (tag, kind, text) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const draw = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };
  const layer = (scaled, v) => v.map((one) => one === null ? null : scaled.low + (scaled.high - scaled.low) * one / LEVELS);
  const real = (scaled) => scaled.v.map((v) => v === null ? null : scaled.low + (scaled.high - scaled.low) * v / LEVELS);
  let episode = 0, view = [0, 1], time = [], cursors = [], values = [];

  data.episodes.forEach((one, index) => {
    const count = one.marks.length;
    choose.append(new Option(one.name + (count ? ` (${count} marked)` : ""), index));
  });
  const groups = [...new Set(data.channels.map((channel) => channel.group))];
  if (groups.length > 1) group.append(new Option("all channels", ""));
  groups.forEach((name) => group.append(new Option(`${name}s`.replace("others", "other columns"), name)));
  if (groups.includes("other") && data.channels.length > 12) {
    group.prepend(new Option("observations and actions", "used"));
    group.value = "used";
  }
  const shown = (channel) => group.value === "" || group.value === channel.group || (group.value === "used" && channel.group !== "other");

  const show = () => {
    const one = data.episodes[episode];
    time = real(one.time);
    values = one.values.map(real);
    cursors = [];
    rows.replaceChildren();
    const [from, to] = view, x = (t) => WIDE * (t - from) / (to - from);
    data.channels.forEach((channel, index) => {
      if (shown(channel)) rows.append(row(one, channel, index, x));
    });
    axis.replaceChildren(...[0, 1, 2, 3, 4].map((k) => make("span", "", number(from + k * (to - from) / 4) + (k === 4 ? " s" : ""))));
    legend.replaceChildren(...(one.overlays ? ["logged", ...one.overlays.map((overlay) => overlay.name)] : []).map((name, k) =>
      make("span", k === 0 ? "line" : `${one.overlays[k - 1].upper ? "band" : "line"} overlay-${k - 1}`, name)));
    whole.hidden = from <= time[0] && to >= time[time.length - 1];
    tell(null);
  };
  const row = (one, channel, index, x) => {
    const node = make("div", "viewer-row"), label = make("div", "viewer-label"), value = make("span");
    const scaled = one.values[index], span = scaled.high - scaled.low || 1;
    const y = (v) => EDGE + (TALL - 2 * EDGE) * (1 - (v - scaled.low) / span);
    label.append(make("b", "", channel.name), value);
    const svg = draw("svg", {viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none", role: "img",
      "aria-label": `${channel.name} from ${number(scaled.low)} to ${number(scaled.high)} against time`});
    one.marks.filter((mark) => mark[3] === -1 || mark[3] === index).forEach(([note, start, stop]) => {
      const left = Math.max(x(start), -10), right = Math.min(x(stop), WIDE + 10);
      if (right >= 0 && left <= WIDE) {
        svg.append(draw("rect", {class: `mark ${data.notes[note].tone}`, x: left, y: 0, width: Math.max(right - left, 1), height: TALL}));
      }
    });
    const trace = (points) => {
      let path = "", isDrawing = false;
      points.forEach((v, k) => {
        const at = x(time[k]);
        if (v === null || at < -WIDE || at > 2 * WIDE) { isDrawing = false; return; }
        path += `${isDrawing ? "L" : "M"}${at.toFixed(1)} ${y(v).toFixed(1)}`;
        isDrawing = true;
      });
      return path;
    };
    const also = (one.overlays || []).map((overlay) => ({...overlay, v: layer(scaled, overlay.v[index]),
      upper: overlay.upper && layer(scaled, overlay.upper[index])}));
    also.forEach(({v, upper}, k) => {
      if (!upper) { svg.append(draw("path", {class: `line overlay-${k}`, d: trace(v)})); return; }
      const back = v.map((low, at) => [low, time[at]]).reverse().filter(([low]) => low !== null);
      const edge = back.map(([low, t]) => `L${x(t).toFixed(1)} ${y(low).toFixed(1)}`).join("");
      svg.append(draw("path", {class: `band overlay-${k}`, d: `${trace(upper)}${edge}Z`}));
    });
    svg.append(draw("path", {class: `line ${channel.group}`, d: trace(values[index])}));
    const line = draw("line", {class: "cursor", x1: -9, x2: -9, y1: 0, y2: TALL});
    svg.append(line);
    cursors.push({line, value, index, low: scaled.low, high: scaled.high, also});
    svg.addEventListener("pointermove", (event) => {
      const box = svg.getBoundingClientRect();
      tell(view[0] + (view[1] - view[0]) * (event.clientX - box.left) / box.width);
    });
    svg.addEventListener("pointerleave", () => tell(null));
    node.append(label, svg);
    return node;
  };
  const tell = (at) => {
    const one = data.episodes[episode], place = at === null ? -9 : WIDE * (at - view[0]) / (view[1] - view[0]);
    let near = 0;
    if (at !== null) time.forEach((t, k) => { if (Math.abs(t - at) < Math.abs(time[near] - at)) near = k; });
    cursors.forEach(({line, value, index, low, high, also}) => {
      line.setAttribute("x1", place);
      line.setAttribute("x2", place);
      const v = values[index].length ? values[index][near] : null;
      const more = also.map(({name, v: line, upper}) => upper
        ? `${number(line[near])} to ${number(upper[near])}` : `${name} ${number(line[near])}`);
      value.textContent = at === null ? `${number(low)} to ${number(high)}` : [number(v), ...more].join("; ");
    });
    const points = time.length;
    status.textContent = at === null
      ? `${one.rows.toLocaleString("en")} rows${points < one.rows ? `, drawn by ${points} points that keep every peak` : ""}`
      : `${number(time[near])} s`;
  };
  const list = () => {
    const one = data.episodes[episode];
    notes.replaceChildren(...one.marks.map(([note, start, stop, channel]) => {
      const item = make("li"), said = data.notes[note];
      const place = start === stop ? `${number(start)} s` : `${number(start)} to ${number(stop)} s`;
      const button = make("button", said.tone, `${said.name}${channel < 0 ? "" : ` in ${data.channels[channel].name}`}, ${place}`);
      button.type = "button";
      button.title = said.text;
      button.addEventListener("click", () => {
        const end = time[time.length - 1], margin = Math.max(2 * (stop - start), 0.02 * (end - time[0]));
        view = [Math.max(start - margin, time[0]), Math.min(stop + margin, end)];
        show();
      });
      item.append(button);
      return item;
    }));
  };
  const open = (index) => {
    episode = (index + data.episodes.length) % data.episodes.length;
    choose.value = episode;
    const t = data.episodes[episode].time;
    view = [t.low, t.high > t.low ? t.high : t.low + 1];
    show();
    list();
  };
  choose.addEventListener("change", () => open(Number(choose.value)));
  group.addEventListener("change", show);
  whole.addEventListener("click", () => open(episode));
  root.querySelectorAll("[data-step]").forEach((button) =>
    button.addEventListener("click", () => open(episode + Number(button.dataset.step))));
  open(0);
})();
