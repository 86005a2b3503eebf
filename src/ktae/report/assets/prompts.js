// The list of prompts: pages, order, search.

const PAGE = 40;

const list = { matching: [], page: 0, order: "file", query: "", run: 0 };

function drawPrompts() {
  const orders = [["file", "as saved"], ["low", "lowest accuracy first"], ["high", "highest accuracy first"]];
  const order = el("select", { "aria-label": "Order" }, ...orders.map(([value, text]) => el("option", { value }, text)));
  order.addEventListener("change", () => {
    list.order = order.value;
    list.page = 0;
    showList();
  });
  const search = el("input", { type: "search", id: "search", placeholder: "Search prompts and rollouts",
    "aria-label": "Search prompts and rollouts", spellcheck: "false", autocomplete: "off" });
  let waiting;
  search.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => find(search.value), 200);
  });
  document.getElementById("prompts").append(
    search, order, el("p", { id: "found", class: "quiet", role: "status" }), el("ol", { id: "list" }),
    el("div", { id: "pages" }));
  list.matching = report.prompts.map((_, index) => index);
  showList();
}

function accuracy(prompt) {
  return prompt.scored ? prompt.correct / prompt.scored : -1;
}

function showList() {
  const sorted = [...list.matching];
  const sign = { low: 1, high: -1 }[list.order];
  if (sign) sorted.sort((i, j) => sign * (accuracy(report.prompts[i]) - accuracy(report.prompts[j])) || i - j);
  const pages = Math.max(1, Math.ceil(sorted.length / PAGE));
  list.page = Math.min(list.page, pages - 1);
  const shown = sorted.slice(list.page * PAGE, (list.page + 1) * PAGE);
  document.getElementById("list").replaceChildren(...shown.map(promptRow));
  const turn = (by, text, label) => el("button", {
    type: "button", "aria-label": label, disabled: list.page + by < 0 || list.page + by >= pages,
    onclick: () => { list.page += by; showList(); document.getElementById("list").scrollTop = 0; },
  }, text);
  document.getElementById("pages").replaceChildren(...(pages === 1 ? [] : [
    turn(-1, "←", "Previous page"), el("span", {}, `page ${list.page + 1} of ${pages}`), turn(1, "→", "Next page"),
  ]));
}

// The group's label, where it says more than the prompt's number.
function groupLabel(index) {
  const { id } = report.prompts[index];
  return id === String(index + 1) ? [] : ["· ", ...visible(id, "prose")];
}

function promptRow(index) {
  const prompt = report.prompts[index];
  const share = prompt.scored ? `${prompt.correct}/${prompt.scored}` : "–";
  const bar = el("span", { class: "bar", "aria-hidden": "true" }, el("span"));
  bar.firstChild.style.width = 100 * Math.max(0, accuracy(prompt)) + "%";
  const button = el("button", { type: "button", "data-index": index, "aria-current": index === chosen.index && "true",
    onclick: () => choose(index) },
  el("span", { class: "line" }, el("bdi", { class: "id" }, `${index + 1} `, ...groupLabel(index)),
    el("span", { class: "share" }, share, el("span", { class: "unseen" }, " correct"), bar)),
  el("bdi", { class: "text" }, ...visible(prompt.prompt.replace(/\s+/g, " "), "prose")));
  return el("li", {}, button);
}

// Prompts whose text or rollouts contain the query, upper and lower case alike; the list grows while it is searched.
async function find(query) {
  const run = ++list.run;
  const found = document.getElementById("found");
  list.query = query.toLowerCase();
  list.page = 0;
  markHits();
  if (!list.query) {
    list.matching = report.prompts.map((_, index) => index);
    found.textContent = "";
    showList();
    return;
  }
  list.matching = [];
  let shown = performance.now();
  for (let index = 0; index < report.prompts.length; index++) {
    const group = await unpack(index);
    if (run !== list.run) return;
    if (holds(group, report.prompts[index], list.query)) list.matching.push(index);
    if (performance.now() - shown > 150) {
      found.textContent = `${plural(list.matching.length, "prompt")} so far, ${index + 1} of ${report.prompts.length} searched`;
      showList();
      await new Promise((resolve) => setTimeout(resolve));
      if (run !== list.run) return;
      shown = performance.now();
    }
  }
  found.textContent = `${plural(list.matching.length, "prompt")} with “${query}”`;
  showList();
}

function holds(group, prompt, query) {
  const texts = [prompt.id, group.prompt, ...group.rollouts.map((rollout) => tokenTexts(group, rollout).join(""))];
  return texts.some((text) => text.toLowerCase().includes(query));
}

// Which tokens of a rollout are part of an occurrence of the query.
function hits(texts, query) {
  const inside = new Set();
  if (!query) return inside;
  const lower = texts.map((text) => text.toLowerCase());
  const joined = lower.join("");
  const starts = [];
  lower.reduce((position, text) => (starts.push(position), position + text.length), 0);
  let token = 0;
  for (let at = joined.indexOf(query); at >= 0; at = joined.indexOf(query, at + query.length)) {
    while (token + 1 < starts.length && starts[token + 1] <= at) token++;
    for (let k = token; k < starts.length && starts[k] < at + query.length; k++) inside.add(k);
  }
  return inside;
}
