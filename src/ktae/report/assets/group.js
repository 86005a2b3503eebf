// The chosen prompt: its rollouts as heat maps. Long rollouts are drawn in chunks, when they come near the screen.

const CHUNK = 1000, FOLDED = 1500, LEVELS = 5;

const chosen = { index: null, run: 0, group: null, view: "value", show: "all", unit: null, rollouts: [] };

function isNarrow() {
  return matchMedia("(max-width: 760px)").matches;
}

async function choose(index) {
  const run = ++chosen.run;
  chosen.index = index;
  for (const button of document.querySelectorAll("#list button")) {
    if (Number(button.dataset.index) === index) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }
  const group = await unpack(index);
  if (run !== chosen.run) return;
  Object.assign(chosen, { group, unit: null });
  hideCard();
  drawGroup(report.prompts[index], group);
  if (isNarrow() && list.touched) document.getElementById("chosen").scrollIntoView();
  list.touched = true;
}

function drawGroup(prompt, group) {
  nearby.disconnect();
  const views = [["value", "key value"], ["advantage", "rollout advantage"], ["sum", "sum"]];
  const shows = [["all", "all"], ["correct", "correct"], ["incorrect", "incorrect"]];
  const about = [`${prompt.correct} of ${plural(prompt.scored, "rollout")} correct`];
  if (prompt.scored < prompt.rollouts) about.push(`${prompt.rollouts - prompt.scored} not scored`);
  about.push(`mean reward ${significant(prompt.reward)}`);
  chosen.rollouts = group.rollouts.map(drawRollout);
  document.getElementById("chosen").replaceChildren(
    el("h3", {}, `Prompt ${chosen.index + 1} `, el("bdi", { class: "quiet" }, ...groupLabel(chosen.index))),
    el("bdi", { class: "prompt" }, ...visible(group.prompt, "prose")),
    el("p", { class: "quiet" }, about.join(" · ")),
    drawKeyTokens(group),
    el("div", { class: "tools" },
      choice("view", "Colour", views, chosen.view, (view) => { chosen.view = view; recolour(); }),
      choice("show", "Rollouts", shows, chosen.show, (show) => { chosen.show = show; filterRollouts(); })),
    el("div", { id: "legend" }),
    ...chosen.rollouts.map((rollout) => rollout.section));
  filterRollouts();
  recolour();
}

function drawRollout(rollout, number) {
  const texts = tokenTexts(chosen.group, rollout);
  const state = { ...rollout, number, texts, hits: hits(texts, list.query), chunks: [] };
  const verdict = { 1: "correct", 0: "incorrect" }[rollout.correct] ?? "not scored";
  const facts = [`reward ${significant(rollout.reward)}`, `advantage ${signed(rollout.advantage)}`,
    plural(texts.length, "token")];
  state.body = el("div", { class: "tokens", tabindex: "0", role: "group", "data-rollout": number,
    "aria-label": `Tokens of rollout ${number + 1}; arrow keys move from token to token` });
  state.section = el("section", { class: "rollout " + verdict.replace(" ", "-") },
    el("h4", {}, `Rollout ${number + 1} `, el("span", { class: "verdict" }, verdict),
      el("span", { class: "quiet" }, " " + facts.map((fact) => fact.replaceAll(" ", "\u00a0")).join(" · "))),
    state.body);
  const folded = texts.length > FOLDED;
  addChunks(state, 0, folded ? CHUNK : texts.length);
  if (folded) {
    state.unfold = el("button", { type: "button", class: "unfold", onclick: () => unfold(state) },
      `Show all ${whole(texts.length)} tokens`);
    state.section.append(state.unfold);
  }
  return state;
}

function unfold(state) {
  if (!state.unfold) return;
  state.unfold.remove();
  state.unfold = null;
  addChunks(state, state.chunks[state.chunks.length - 1].end, state.texts.length);
}

// Empty blocks as high as their text is likely to be, to be filled by `nearby`.
function addChunks(state, start, end) {
  while (start < end) {
    let stop = end - start > FOLDED ? start + CHUNK : end;
    // Preferably after a line break, where a new block changes nothing.
    for (let k = stop; k > stop - 300 && stop < end; k--) {
      if (state.texts[k - 1].endsWith("\n")) { stop = k; break; }
    }
    const block = el("div", { class: "chunk" });
    const characters = state.texts.slice(start, stop).reduce((sum, text) => sum + text.length, 0);
    block.style.minHeight = Math.ceil(characters / 70) * 1.7 + "em";
    const chunk = { state, start, end: stop, block, filled: false };
    block.chunk = chunk;
    state.chunks.push(chunk);
    state.body.append(block);
    nearby.observe(block);
    start = stop;
  }
}

const nearby = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) fill(entry.target.chunk);
    else empty(entry.target.chunk);
  }
}, { rootMargin: "1000px 0px" });

function fill(chunk) {
  if (chunk.filled) return;
  const { state, start, end, block } = chunk;
  const spans = [];
  for (let k = start; k < end; k++) {
    const span = el("span", { "data-token": k, tabindex: "-1" }, ...visible(state.texts[k]));
    span.className = tokenClass(state, k);
    spans.push(span);
  }
  block.replaceChildren(...spans);
  block.style.minHeight = "";
  chunk.filled = true;
}

function empty(chunk) {
  if (!chunk.filled || chunk.state.texts.length <= FOLDED || chunk.block.contains(document.activeElement)) return;
  chunk.block.style.minHeight = chunk.block.offsetHeight + "px";
  chunk.block.replaceChildren();
  chunk.filled = false;
}

function keyValue(state, k) {
  return state.values ? state.values[k] : chosen.group.units.value[state.units[k]];
}

function tokenValue(state, k) {
  if (state.units[k] < 0 || state.correct === null) return null;
  const value = keyValue(state, k);
  return { value, advantage: state.advantage, sum: state.advantage + value }[chosen.view];
}

function tokenClass(state, k) {
  const value = tokenValue(state, k);
  let name = "t";
  if (value === null) name += " uncounted";
  else if (level(value)) name += (value > 0 ? " c" : " b") + level(value);
  if (isSpecial(state.texts[k])) name += " special";
  if (state.hits.has(k)) name += " hit";
  if (chosen.unit !== null && state.units[k] === chosen.unit) name += " same";
  return name;
}

// 0 (none) to LEVELS, in equal parts of the view's range.
function level(value) {
  const share = Math.abs(value) / chosen.extent;
  return share < 0.05 ? 0 : Math.min(LEVELS, Math.ceil(share * LEVELS - 1e-9));
}

// The classes of all tokens that are drawn, after a change of view, unit or query.
function restyle() {
  for (const state of chosen.rollouts) {
    for (const chunk of state.chunks) {
      for (const span of chunk.filled ? chunk.block.children : []) {
        span.className = tokenClass(state, Number(span.dataset.token));
      }
    }
  }
}

function recolour() {
  const largest = Math.max(...chosen.group.rollouts.map((rollout) => Math.abs(rollout.advantage)), 0);
  chosen.extent = { value: chosen.group.scale, advantage: largest, sum: largest + chosen.group.scale }[chosen.view] || 1;
  const name = { value: "key-token value", advantage: "rollout advantage", sum: "token advantage" }[chosen.view];
  const swatches = [];
  for (let k = -LEVELS; k <= LEVELS; k++) {
    swatches.push(el("span", { class: "t " + (k > 0 ? "c" + k : k < 0 ? "b" + -k : "") }, "  "));
  }
  document.getElementById("legend").replaceChildren(
    el("span", {}, name), el("span", {}, signed(-chosen.extent, 2), " blamed"),
    el("span", { class: "swatches", "aria-hidden": "true" }, ...swatches),
    el("span", {}, "credited ", signed(chosen.extent, 2)),
    el("span", { class: "quiet" }, "underlined: solid credited, dotted blamed; ", el("i", { class: "space" }, " "),
      " space, ↵ line break"));
  restyle();
  showCard(chosen.pinned);
}

function filterRollouts() {
  const wanted = { correct: 1, incorrect: 0 }[chosen.show];
  for (const state of chosen.rollouts) {
    state.section.hidden = wanted !== undefined && state.correct !== wanted;
  }
}

function markHits() {
  for (const state of chosen.rollouts) state.hits = hits(state.texts, list.query);
  restyle();
}

// Brings a token on the screen and gives it the focus.
function goTo(state, k) {
  if (state.section.hidden) {
    chosen.show = "all";
    document.querySelector("input[name=show][value=all]").checked = true;
    filterRollouts();
  }
  if (k >= state.chunks[state.chunks.length - 1].end) unfold(state);
  const chunk = state.chunks.find(({ start, end }) => start <= k && k < end);
  fill(chunk);
  const span = chunk.block.children[k - chunk.start];
  span.scrollIntoView({ block: isNarrow() ? "start" : "center" });
  span.focus({ preventScroll: true });
  return span;
}
