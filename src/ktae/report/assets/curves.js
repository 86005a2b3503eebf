// Training curves and evaluation, drawn from the numbers in the page.

const WIDTH = 340, HEIGHT = 190, LEFT = 46, RIGHT = 10, TOP = 10, BOTTOM = 26;

function drawTraining(curves) {
  if (!curves.length) return;
  document.getElementById("training").hidden = false;
  const names = [...new Set(curves.flatMap((curve) => curve.series.map((series) => series.name)))];
  const legend = el("p", { class: "legend" });
  names.forEach((name, k) => {
    const key = svg("svg", { width: 26, height: 10, "aria-hidden": "true" });
    key.append(svg("line", { x1: 1, x2: 25, y1: 5, y2: 5, class: "line s" + (k % 6) }));
    legend.append(el("span", {}, key, " ", name));
  });
  const smoothed = "Faint: every logged step. Strong: running mean over a tenth of the steps.";
  document.getElementById("curves").append(
    legend,
    el("div", { class: "charts" }, ...curves.map((curve) => chart(curve, names))),
    el("p", { class: "quiet" }, smoothed),
  );
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
  const ends = curve.series.map((series) => {
    const mean = runningMean(series.points);
    return `${series.name} ${significant(mean[0][1])} to ${significant(mean[mean.length - 1][1])}`;
  });
  picture.append(svg("title", {}, `${curve.label}: ${ends.join("; ")}`));
  for (const tick of ticks) {
    picture.append(svg("line", { x1: LEFT, x2: WIDTH - RIGHT, y1: y(tick), y2: y(tick), class: "grid" }));
    picture.append(svg("text", { x: LEFT - 6, y: y(tick) + 4, "text-anchor": "end" }, shortNumber(tick)));
  }
  for (const [step, anchor] of [[first, "start"], [last, "end"]]) {
    picture.append(svg("text", { x: x(step), y: HEIGHT - 8, "text-anchor": anchor }, whole(step)));
  }
  picture.append(svg("text", { x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, "step"));
  for (const series of curve.series) {
    const style = "s" + (names.indexOf(series.name) % 6);
    const path = (points) => points.map(([step, value]) => x(step).toFixed(1) + "," + y(value).toFixed(1)).join(" ");
    picture.append(svg("polyline", { points: path(series.points), class: "line faint " + style }));
    picture.append(svg("polyline", { points: path(runningMean(series.points)), class: "line " + style }));
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
    reading.textContent = `step ${whole(nearest[0][0])}: ` +
      nearest.map((point, k) => `${curve.series[k].name} ${significant(point[1])}`).join(", ");
  });
  picture.addEventListener("pointerleave", () => {
    mark.setAttribute("visibility", "hidden");
    reading.textContent = " ";
  });
  return el("figure", {}, el("figcaption", {}, curve.label), picture, reading);
}

function runningMean(points) {
  const half = Math.floor(points.length / 20);
  return points.map(([step], k) => {
    const near = points.slice(Math.max(0, k - half), k + half + 1);
    return [step, near.reduce((sum, point) => sum + point[1], 0) / near.length];
  });
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

function drawEvaluation(evaluation) {
  if (!evaluation) return;
  const section = document.getElementById("evaluation");
  section.hidden = false;
  section.append(
    intervalTable("Policy", evaluation.policies, false),
    ...(evaluation.differences.length ? [intervalTable("Difference", evaluation.differences, true)] : []),
    ...evaluation.notes.map((note) => el("p", { class: "quiet" }, note)),
  );
}

// Rows of an estimate with its interval, as numbers and on a common scale.
function intervalTable(head, rows, differences) {
  const ends = [...rows.flatMap((row) => [row.low, row.high]), ...(differences ? [0] : [])];
  const ticks = niceTicks(Math.min(...ends), Math.max(...ends));
  const [low, high] = [ticks[0], ticks[ticks.length - 1]];
  const x = (value) => (4 + ((value - low) / (high - low)) * 152).toFixed(1);
  const body = rows.map((row) => {
    const style = !differences ? "estimate" : row.low > 0 ? "estimate credit" : row.high < 0 ? "estimate blame" : "estimate";
    const picture = svg("svg", { viewBox: "0 0 160 18", width: 160, height: 18, class: style, "aria-hidden": "true" });
    picture.append(svg("line", { x1: x(low), x2: x(high), y1: 9, y2: 9, class: "grid" }));
    if (differences) picture.append(svg("line", { x1: x(0), x2: x(0), y1: 1, y2: 17, class: "grid" }));
    picture.append(svg("line", { x1: x(row.low), x2: x(row.high), y1: 9, y2: 9, class: "whisker" }));
    picture.append(svg("circle", { cx: x(row.value), cy: 9, r: 3 }));
    const show = (value) => (differences ? signed(value) : value.toFixed(3));
    return el("tr", {},
      el("th", { scope: "row" }, row.label), el("td", {}, row.mode),
      el("td", { class: "number" }, show(row.value)),
      el("td", { class: "number" }, `${show(row.low)} to ${show(row.high)}`),
      el("td", {}, picture), el("td", { class: "number" }, row.more || ""));
  });
  const scale = `${shortNumber(low)} to ${shortNumber(high)}`;
  const heads = [head, "Decoding", "Accuracy", "95 % interval", scale,
    differences ? "" : "Mean length"];
  return el("div", { class: "wide" }, el("table", { class: "intervals" },
    el("thead", {}, el("tr", {}, ...heads.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...body)));
}
