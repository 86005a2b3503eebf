// What the page holds, and the start.

const report = JSON.parse(document.getElementById("report").textContent);
const packed = JSON.parse(document.getElementById("groups").textContent);

document.getElementById("title").textContent = report.title;
document.getElementById("source").append(...visible(report.source, "prose"));
document.getElementById("summary").append(...report.summary.map(([name, value]) =>
  el("div", {}, el("dt", {}, name), el("dd", {}, value))));
document.getElementById("notes").append(...report.notes.map((note) => el("p", { class: "note" }, ...visible(note, "prose"))));
drawTraining(report.curves);
drawEvaluation(report.evaluation);
if (report.prompts.length) {
  document.getElementById("rollouts").hidden = false;
  drawPrompts();
  listenToTokens();
  // A prompt with both kinds of rollouts is the one worth opening first.
  choose(Math.max(0, report.prompts.findIndex(({ correct, scored }) => 0 < correct && correct < scored)));
}
