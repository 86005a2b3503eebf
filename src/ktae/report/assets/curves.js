// Training curves and evaluation, drawn from the numbers in the page.

const WIDTH = 340, HEIGHT = 190, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 26;

function drawTraining(curves) {
  if (!curves?.panels.length) return;
  const { names, note, panels } = curves;
  document.getElementById("training").hidden = false;
  const legend = el("p", { class: "legend" });
  names.forEach((name, k) => {
    const key = svg("svg", { width: 36, height: 10, "aria-hidden": "true" });
    key.append(svg("line", { x1: 1, x2: 35, y1: 5, y2: 5, class: "line s" + k }));
    legend.append(el("span", {}, key, " ", name));
  });
  const faint = panels.some(({ series }) => series.some(isSmoothed));
  document.getElementById("curves").append(
    legend,
    el("div", { class: "charts" }, ...panels.map((panel) => chart(panel, names))),
    faint ? el("p", { class: "quiet" }, note) : "",
  );
}

// Whether the mean, [2], is another line than the logged values, [1].
function isSmoothed(series) {
  return series.points.some((point) => point[1] !== point[2]);
}

function chart(curve, names) {
  const points = curve.series.flatMap((series) => series.points);
  const steps = points.map((point) => point[0]), values = points.map((point) => point[1]);
  const ticks = niceTicks(Math.min(...values), Math.max(...values));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const [first, last] = [Math.min(...steps), Math.max(...steps)];
  const x = (step) => LEFT + ((step - first) / (last - first || 1)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => HEIGHT - BOTTOM - ((value - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  const ends = curve.series.map(({ name, points }) =>
    `${name} ${significant(points[0][2])} to ${significant(points[points.length - 1][2])}`);
  picture.append(svg("title", {}, `${curve.label}: ${ends.join("; ")}`));
  for (const tick of ticks) {
    picture.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }));
    picture.append(svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, shortNumber(tick)));
  }
  for (const [step, anchor] of [[first, "start"], [last, "end"]]) {
    picture.append(svg("text", { x: x(step), y: HEIGHT - 8, "text-anchor": anchor }, whole(step)));
  }
  picture.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, "update"));
  for (const series of curve.series) {
    const { name, points } = series;
    const path = (of) => points.map((point) => x(point[0]).toFixed(1) + "," + y(point[of]).toFixed(1)).join(" ");
    const style = "line s" + names.indexOf(name);
    if (isSmoothed(series)) picture.append(svg("polyline", { points: path(1), class: style + " faint" }));
    picture.append(svg("polyline", { points: path(2), class: style }));
  }
  const reading = el("p", { class: "reading" }, " ");
  const mark = svg("line", { y1: TOP, y2: HEIGHT - BOTTOM, class: "mark", visibility: "hidden" });
  picture.append(mark);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const share = (((event.clientX - box.left) / box.width) * WIDTH - LEFT) / (WIDTH - LEFT - RIGHT);
    const step = first + Math.min(Math.max(share, 0), 1) * (last - first);
    const nearest = curve.series.map((series) => series.points.reduce(
      (best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best)));
    mark.setAttribute("x1", x(nearest[0][0]));
    mark.setAttribute("x2", x(nearest[0][0]));
    mark.setAttribute("visibility", "visible");
    reading.textContent = `update ${whole(nearest[0][0])}: ` +
      nearest.map((point, k) => `${curve.series[k].name} ${significant(point[1])}`).join(", ");
  });
  picture.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    reading.textContent = " ";
  });
  return el("figure", {}, el("figcaption", {}, curve.label), picture, reading);
}

// Three to six round numbers that enclose the range.
function niceTicks(low, high) {
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const rough = (high - low) / 3;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const ticks = [];
  for (let k = Math.floor(low / step + 1e-9); ticks.length < 2 || ticks[ticks.length - 1] < high - step * 1e-9; k++) {
    ticks.push(k * step);
  }
  return ticks;
}

function shortNumber(value) {
  if (value !== 0 && (Math.abs(value) >= 1e5 || Math.abs(value) < 1e-3)) {
    return value.toExponential(0).replace("-", "−");
  }
  return String(Number(value.toPrecision(3))).replace("-", "−");
}

function drawEvaluation(results) {
  if (!results) return;
  const { policies, differences, problems, seed } = results;
  const label = (name) => policies[name].label;
  const accuracies = Object.values(policies).flatMap((policy) => ["sampled", "greedy"].filter((mode) => policy[mode])
    .map((mode) => ({ ...policy[mode], label: policy.label, mode, value: policy[mode].accuracy })));
  const compared = differences.map((row) =>
    ({ ...row, label: `${label(row.policy)} minus ${label(row.baseline)}`, value: row.difference }));
  const section = document.getElementById("evaluation");
  section.hidden = false;
  section.append(
    intervalTable("Policy", accuracies, false),
    compared.length ? intervalTable("Difference", compared, true) : "",
    el("p", { class: "quiet" }, `${whole(problems)} held-out problems. The intervals cover the choice of problems, not ` +
      `the training seed (one here: ${seed}); one seed cannot show that one algorithm is better than another.`));
}

// Rows of an estimate with its interval, as numbers and on a common scale.
function intervalTable(head, rows, differences) {
  const ends = [...rows.flatMap((row) => [row.low, row.high]), ...(differences ? [0] : [])];
  const ticks = niceTicks(Math.min(...ends), Math.max(...ends));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const x = (value) => (4 + ((value - low) / (high - low)) * 152).toFixed(1);
  const show = (value) => (differences ? signed(value) : value.toFixed(3));
  const body = rows.map((row) => {
    const side = !differences ? "" : row.low > 0 ? " credit" : row.high < 0 ? " blame" : "";
    const picture = svg("svg", { viewBox: "0 0 160 18", width: 160, height: 18, class: "estimate" + side, "aria-hidden": "true" });
    picture.append(svg("line", { x1: x(low), x2: x(high), y1: 9, y2: 9, class: "grid" }));
    if (differences) picture.append(svg("line", { x1: x(0), x2: x(0), y1: 1, y2: 17, class: "grid" }));
    picture.append(svg("line", { x1: x(row.low), x2: x(row.high), y1: 9, y2: 9, class: "whisker" }));
    picture.append(svg("circle", { cx: x(row.value), cy: 9, r: 3 }));
    return el("tr", {},
      el("th", { scope: "row" }, row.label), el("td", {}, row.mode),
      el("td", { class: "number" }, show(row.value)),
      el("td", { class: "number" }, `${show(row.low)} to ${show(row.high)}`),
      el("td", {}, picture),
      differences ? null : el("td", { class: "number length" }, row.mean_length.toFixed(1)));
  });
  const heads = [head, "Decoding", "Accuracy", "95 % interval", `${shortNumber(low)} to ${shortNumber(high)}`,
    ...(differences ? [] : ["Mean length"])];
  return el("div", { class: "wide" }, el("table", { class: "intervals" },
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...body)));
}
