// Elements, text and numbers. Data reaches the page as text nodes only.

function el(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

// White space, and what has no glyph or turns the direction of the text around it.
const UNSEEN =
  /[ \n\t]|[\u0000-\u001f\u007f-\u00a0\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

// Nodes that show a text with everything in it visible. The characters themselves stay where they can, for copying
// and for breaking lines; the style sheet draws the marks. As "prose", spaces and line breaks get no mark; as a
// "label", line breaks are only marked.
function visible(text, as = "tokens") {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(UNSEEN)) {
    const character = found[0];
    if (as === "prose" && (character === " " || character === "\n")) continue;
    if (found.index > from) nodes.push(text.slice(from, found.index));
    from = found.index + 1;
    if (character === " ") nodes.push(el("i", { class: "space" }, " "));
    else if (character === "\n") nodes.push(el("i", { class: "newline" }, as === "label" ? "" : "\n"));
    else if (character === "\t") nodes.push(el("i", { class: "tab" }, "\t"));
    else nodes.push(el("i", { class: "code" }, codeName(character)));
  }
  if (from < text.length) nodes.push(text.slice(from));
  return nodes;
}

function codeName(character) {
  return "U+" + character.charCodeAt(0).toString(16).toUpperCase().padStart(4, "0");
}

// A token as a label in a table or a card.
function tokenLabel(text) {
  const nodes = text === "" ? ["(no text)"] : visible(text, "label");
  return el("bdi", { class: isSpecial(text) ? "token special" : "token" }, ...nodes);
}

function isSpecial(text) {
  return /^(<[|｜][^<>]*[|｜]>|<\/?s>|<(pad|eos|bos|unk|mask)>)$/i.test(text);
}

function signed(value, digits = 3) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return (0).toFixed(digits);
  return (value < 0 ? "−" : "+") + text;
}

function significant(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1).replace("-", "−");
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

function whole(value) {
  return value.toLocaleString("en-GB");
}

function plural(count, noun) {
  return whole(count) + " " + noun + (count === 1 ? "" : "s");
}

function choice(name, label, options, current, onChange) {
  const radios = options.map(([value, text]) => {
    const radio = el("input", { type: "radio", name, value, checked: value === current });
    radio.addEventListener("change", () => onChange(value));
    return el("label", {}, radio, el("span", {}, text));
  });
  return el("fieldset", { class: "choice" }, el("legend", {}, label), ...radios);
}

// The groups lie in the page compressed, and are unpacked one at a time.
async function unpack(index) {
  const bytes = Uint8Array.from(atob(packed[index]), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).json();
}

// The texts of a rollout's tokens: those of their units, unless the rollout lists its own.
function tokenTexts(group, rollout) {
  return rollout.texts || rollout.units.map((unit) => group.units.text[unit]);
}
