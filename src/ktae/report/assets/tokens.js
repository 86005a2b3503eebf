// One token: its card on hover, tap or focus. The group's key tokens: a table linked to their places.

const KEY_TOKENS = 8;

const COLUMNS = [
  ["Token", null], ["Value", "value"], ["In correct", "a"], ["In incorrect", "b"], ["Fisher p", "fisher_p"],
  ["Shuffled p", "permutation_p"], ["Adjusted p", "adjusted_p"], ["Gain, bits", "information_gain"],
  ["Uses", "occurrences"],
];

const table = { sort: null, descending: true, all: false };

function showCard(pinned, hovered) {
  const card = document.getElementById("card");
  const at = hovered || pinned;
  chosen.pinned = pinned || null;
  if (!at) { card.hidden = true; return; }
  const { state, k } = at, unit = state.units[k];
  const rows = [];
  const row = (name, value, id) => rows.push(el("dt", {}, name), el("dd", { "data-name": id || name }, value));
  let counts = null, remark = "";
  if (unit >= 0) {
    const of = (name) => chosen.group.units[name][unit];
    const cell = (name) => el("td", { "data-name": name }, whole(of(name)));
    counts = el("table", { class: "counts" },
      el("thead", {}, el("tr", {}, el("td"), el("th", { scope: "col" }, "correct"), el("th", { scope: "col" }, "incorrect"))),
      el("tbody", {},
        el("tr", {}, el("th", { scope: "row" }, "hold it"), cell("a"), cell("b")),
        el("tr", {}, el("th", { scope: "row" }, "lack it"), cell("c"), cell("d"))));
    row("Fisher p", significant(of("fisher_p")), "fisher_p");
    row("shuffled p", significant(of("permutation_p")), "permutation_p");
    row("adjusted p", significant(of("adjusted_p")), "adjusted_p");
    row("gain, bits", significant(of("information_gain")), "information_gain");
    row("Cohen's h", signed(of("cohen_h")), "cohen_h");
    row("frequencies", `${significant(of("tf_correct"))} / ${significant(of("tf_incorrect"))}`, "tf");
    row("direction", significant(of("direction"), 4), "direction");
    row("uses", whole(of("occurrences")), "occurrences");
    const largest = chosen.group.scale / (state.values ? 2 : 1); // before centring
    if (of("fisher_p") === 1 && Math.abs(of("value")) > 0.99 * largest) {
      remark = el("p", { class: "quiet remark" }, "p is 1 although the value is extreme: only one side holds the token, " +
        "which makes it extreme, but so few rollouts do that chance alone would do as much.");
    }
  }
  if (unit >= 0 && state.correct !== null) {
    const value = keyValue(state, k);
    if (state.values) row("before centring", signed(chosen.group.units.value[unit]), "uncentred");
    row("key value", signed(value), "value");
    row("advantage", signed(state.advantage), "advantage");
    row("sum", signed(state.advantage + value), "sum");
  } else {
    row("not counted", state.correct === null ? "the rollout is not scored" : "outside the mask", "uncounted");
  }
  const id = unit >= 0 ? `id ${chosen.group.units.unit[unit]} · ` : "";
  card.replaceChildren(
    el("p", { class: "head" }, tokenLabel(state.texts[k]),
      el("button", { type: "button", "aria-label": "Close", onclick: unpin }, "×")),
    el("p", { class: "quiet" }, `${id}rollout ${state.number + 1}, token ${whole(k + 1)}`),
    counts || "", el("dl", {}, ...rows), remark, pinned === at && unit >= 0 ? placeTurner(at) : "");
  card.classList.toggle("pinned", at === pinned);
  card.hidden = false;
  place(card, at.span);
}

// Beside the token, inside the window; a narrow screen shows the card at its bottom instead.
function place(card, span) {
  const box = span.getBoundingClientRect();
  card.style.left = card.style.top = "";
  card.classList.toggle("away", !span.isConnected || box.bottom < 0 || box.top > innerHeight);
  if (isNarrow()) return;
  const height = card.offsetHeight, width = card.offsetWidth;
  let left = box.left, top = box.bottom + 8;
  if (top + height > innerHeight) top = box.top - height - 8;
  if (top < 0) {
    left = box.right + 8 + width < innerWidth ? box.right + 8 : box.left - width - 8;
    top = (innerHeight - height) / 2;
  }
  card.style.left = Math.max(8, Math.min(left, innerWidth - width - 8)) + "px";
  card.style.top = Math.max(8, top) + "px";
}

function hideCard() {
  chosen.pinned = null;
  chosen.unit = null;
  document.getElementById("card").hidden = true;
}

function unpin() {
  hideCard();
  restyle();
}

function tokenAt(target) {
  const span = target instanceof Element ? target.closest("[data-token]") : null;
  if (!span) return null;
  return { span, state: chosen.rollouts[Number(span.closest(".tokens").dataset.rollout)], k: Number(span.dataset.token) };
}

function pin(at) {
  chosen.unit = at.state.units[at.k] >= 0 ? at.state.units[at.k] : null;
  restyle();
  showCard(at);
  const hidden = at.span.getBoundingClientRect().bottom + 8 - document.getElementById("card").getBoundingClientRect().top;
  if (isNarrow() && hidden > 0) scrollBy(0, hidden);
}

function listenToTokens() {
  const article = document.getElementById("chosen");
  // A pinned card stays until it is closed: the page may move under a mouse that does not.
  article.addEventListener("pointerover", (event) => {
    if (event.pointerType === "mouse" && !chosen.pinned) showCard(null, tokenAt(event.target));
  });
  article.addEventListener("pointerleave", () => { if (!chosen.pinned) showCard(null); });
  document.addEventListener("click", (event) => {
    const at = tokenAt(event.target);
    if (at && at.span !== chosen.pinned?.span) pin(at);
    else if (at || !event.target.closest("button, label, input, summary, #card")) unpin();
  });
  article.addEventListener("keydown", (event) => {
    const body = event.target.closest(".tokens");
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!body || !step || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    const state = chosen.rollouts[Number(body.dataset.rollout)];
    const at = tokenAt(event.target);
    const k = at ? at.k + step : 0;
    if (k >= 0 && k < state.texts.length) pin({ state, k, span: goTo(state, k) });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") unpin();
  });
  addEventListener("scroll", () => { if (chosen.pinned) place(document.getElementById("card"), chosen.pinned.span); },
    { passive: true });
}

function drawKeyTokens(group) {
  Object.assign(table, { sort: null, all: false });
  const section = el("details", { id: "keytokens", open: !isNarrow() }, el("summary", {}, "Key tokens"));
  const { correct, scored } = report.prompts[chosen.index];
  const isMixed = 0 < correct && correct < scored;
  section.append(...group.remarks.map((remark) => el("p", { class: isMixed ? "quiet remark" : "note" }, remark)),
    el("div", { class: "wide" }));
  if (isMixed) fillKeyTokens(group, section.lastChild);
  return section;
}

function fillKeyTokens(group, target) {
  const { units } = group;
  const order = units.value.map((_, unit) => unit);
  if (table.sort) {
    const column = units[table.sort], sign = table.descending ? -1 : 1;
    order.sort((i, j) => sign * (column[i] - column[j]) || i - j);
  }
  const shown = table.all ? order : order.slice(0, KEY_TOKENS);
  const heads = COLUMNS.map(([name, column]) => {
    const direction = table.sort === column && column ? (table.descending ? "descending" : "ascending") : null;
    const head = column ? el("button", { type: "button", onclick: () => {
      table.descending = table.sort === column ? !table.descending : !column.endsWith("p");
      table.sort = column;
      fillKeyTokens(group, target);
    } }, name) : name;
    return el("th", { scope: "col", "aria-sort": direction }, head);
  });
  const rows = shown.map((unit) => {
    const of = (name) => units[name][unit];
    const link = el("button", { type: "button", "data-unit": unit, title: "Show where it stands",
      onclick: () => visit(unit, 0) },
      units.context?.[unit] ? el("bdi", { class: "quiet" }, ...visible(units.context[unit], "label")) : "",
      tokenLabel(of("text")));
    const cells = [link, signed(of("value")), `${of("a")}/${of("a") + of("c")}`, `${of("b")}/${of("b") + of("d")}`,
      significant(of("fisher_p")), significant(of("permutation_p")), significant(of("adjusted_p")),
      significant(of("information_gain")), whole(of("occurrences"))];
    return el("tr", {}, ...cells.map((cell, k) =>
      el("td", { class: k ? "number" : null }, k === 1 ? el("span", { class: valueClass(of("value")) }, cell) : cell)));
  });
  const more = el("button", { type: "button", class: "unfold", onclick: () => {
    table.all = true;
    fillKeyTokens(group, target);
  } }, `Show all ${whole(order.length)}`);
  target.replaceChildren(
    el("table", { class: "keys" }, el("thead", {}, el("tr", {}, ...heads)), el("tbody", {}, ...rows)),
    ...(shown.length < order.length ? [more] : []));
}

function valueClass(value) {
  const k = Math.min(LEVELS, Math.ceil((Math.abs(value) / chosen.group.scale) * LEVELS));
  return "t " + (value > 0 ? "c" : "b") + k;
}

// All places of a unit in the group's rollouts.
function placesOf(unit) {
  return chosen.rollouts.flatMap((state) => state.units.flatMap((other, k) => (other === unit ? [{ state, k }] : [])));
}

function visit(unit, number) {
  const places = placesOf(unit);
  const { state, k } = places[(number + places.length) % places.length];
  pin({ state, k, span: goTo(state, k) });
}

// From the card's place of a unit to the one before and after it.
function placeTurner(at) {
  const unit = at.state.units[at.k], places = placesOf(unit);
  const number = places.findIndex((place) => place.state === at.state && place.k === at.k);
  const turn = (by, sign, label) => el("button", { type: "button", "aria-label": label,
    onclick: () => visit(unit, number + by) }, sign);
  return el("p", { class: "turner" }, turn(-1, "←", "Previous place"),
    el("span", {}, `place ${whole(number + 1)} of ${whole(places.length)}`), turn(1, "→", "Next place"));
}
