"use strict";
// The page at /: a prompt, or two side by side, on one input.

const $ = (id) => document.getElementById(id);
const SIDES = ["left", "right"];
const EXAMPLES = { country: "Kenya" };
let prompts = new Map();
let running = null;

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function tell(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

async function begin() {
  try {
    prompts = new Map((await fetchJson("/v1/models")).data.map((one) => [one.id, one]));
  } catch (error) {
    tell(error.message, error.status !== 503);
    $("access").hidden = error.status !== 401;
    if (error.status === 503) setTimeout(begin, 1000);
    return;
  }
  $("access").hidden = true;
  $("ask").hidden = prompts.size === 0;
  tell(prompts.size ? `${prompts.size} prompts share one LM.` : "There is no prompt here.");
  fillChoices();
  change();
  followLink();
}

// A link may name the prompts and the fields: /?left=continents&right=currencies&country=Peru
function followLink() {
  const asked = new URLSearchParams(location.search);
  if (!prompts.has(asked.get("left"))) return;
  $("left").value = asked.get("left");
  $("right").value = prompts.has(asked.get("right")) ? asked.get("right") : "";
  change();
  for (const area of $("fields").querySelectorAll("textarea")) {
    area.value = asked.get(area.name) ?? area.value;
  }
  showPrograms();
  ask();
}

function linkHere() {
  const asked = { ...fields(), left: $("left").value };
  if ($("right").value) asked.right = $("right").value;
  return `/?${new URLSearchParams(asked)}`;
}

function fillChoices() {
  const names = [...prompts.keys()];
  $("left").replaceChildren(...names.map((name) => new Option(name, name)));
  $("right").replaceChildren(new Option("none", ""), ...names.map((n) => new Option(n, n)));
  const alike = names.find((name) => name !== names[0] && sameFields(name, names[0]));
  $("right").value = alike || "";
}

function sameFields(name, other) {
  const [one, two] = [name, other].map((n) => prompts.get(n).fields.join("\n"));
  return one === two;
}

function chosen() {
  return SIDES.map((side) => [side, prompts.get($(side).value)]).filter(([, prompt]) => prompt);
}

function change() {
  for (const side of SIDES) {
    const prompt = prompts.get($(side).value);
    $(`${side}-template`).replaceChildren(...(prompt ? prompt.parts.map(drawn) : []));
    $(`${side}-result`).replaceChildren();
    $(`${side}-near`).hidden = !prompt || !prompt.parts.some((part) => part.kind === "soft");
    $(`${side}-near`).open = false;
    $(`${side}-words`).replaceChildren();
    $(`${side}-attention`).hidden = !prompt;
    $(`${side}-attention`).open = false;
    $(`${side}-layer`).replaceChildren();
    forgetAttention(side);
  }
  drawFields();
  showPrograms();
}

// A part of a template: soft tokens are dots, fields and the answer are named.
function drawn(part) {
  if (part.kind === "text") return document.createTextNode(part.text);
  if (part.kind === "field") return element("span", { className: "part field" }, part.text);
  if (part.kind === "mask") return element("span", { className: "part mask" }, "answer");
  if (part.kind === "separator") return element("span", { className: "part" }, "separator");
  const what = part.kind === "soft" ? "soft tokens" : "a prefix at every layer";
  const title = part.count ? `${part.count} ${what}` : `${what}: ${part.text}`;
  const node = element("span", { className: `part ${part.kind}`, title });
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", title);
  if (part.kind === "prefix") node.append("prefix ");
  const dots = Math.min(part.count || part.text.split(/\s+/).length, 12);
  for (let i = 0; i < dots; i += 1) node.append(element("span", { className: "dot" }));
  if (part.count > dots) node.append(` ${part.count}`);
  return node;
}

// A line for each soft token, in the order of the template.
async function showWords(side) {
  const list = $(`${side}-words`);
  if (!$(`${side}-near`).open || list.children.length) return;
  const name = $(side).value;
  try {
    const { words } = await fetchJson(`/v1/words/${name}`);
    if ($(side).value !== name) return;
    list.replaceChildren(...words.map((near) => element("li", {}, near.join(", "))));
  } catch (error) {
    tell(error.message, true);
  }
}

function drawFields() {
  const before = fields();
  const names = new Set(chosen().flatMap(([, prompt]) => prompt.fields));
  $("fields").replaceChildren(...[...names].flatMap((name) => {
    const id = `field-${name}`;
    const value = before[name] ?? EXAMPLES[name] ?? "";
    const area = element("textarea", { id, name, rows: 1, value });
    area.addEventListener("input", () => {
      showPrograms();
      SIDES.forEach(forgetAttention);
    });
    return [element("label", { htmlFor: id }, name), area];
  }));
}

function fields() {
  return Object.fromEntries([...$("fields").querySelectorAll("textarea")].map((area) =>
    [area.name, area.value]));
}

function fieldsOf(prompt) {
  const all = fields();
  return Object.fromEntries(prompt.fields.map((name) => [name, all[name]]));
}

function showPrograms() {
  const [, prompt] = chosen()[0];
  const { path, body } = requestOf(prompt, fieldsOf(prompt));
  $("link").href = linkHere();
  $("curl").textContent = asCurl(path, body);
  $("python").textContent = asPython(path, body);
}

async function ask() {
  if (running) running.abort();
  running = new AbortController();
  const { signal } = running;
  $("stop").hidden = false;
  tell("The LM answers.");
  SIDES.filter((side) => $(`${side}-attention`).open).forEach(showAttention);
  const labelled = chosen().filter(([, prompt]) => prompt.task === "labels");
  const writing = chosen().filter(([, prompt]) => prompt.task === "text");
  const work = writing.map(([side, prompt]) => write(side, prompt, signal));
  if (labelled.length) work.push(classify(labelled, signal));
  const faults = (await Promise.allSettled(work)).filter((one) => one.status === "rejected");
  if (signal.aborted) tell("Stopped.");
  else if (faults.length) tell(faults[0].reason.message, true);
  else tell("Answered.");
  if (running && running.signal === signal) {
    running = null;
    $("stop").hidden = true;
  }
}

// Both prompts' rows go in one request, and so in one batch.
async function classify(sides, signal) {
  const rows = sides.map(([, prompt]) => ({ prompt: prompt.id, fields: fieldsOf(prompt) }));
  const { answers } = await fetchJson("/v1/classify", { rows }, signal);
  answers.forEach((answer, number) => {
    const result = $(`${sides[number][0]}-result`);
    if (answer.problem) {
      result.replaceChildren(element("p", { className: "wrong" }, answer.problem.detail));
      return;
    }
    const list = element("ol", { className: "scores" });
    Object.entries(answer.scores).slice(0, 8).forEach(([label, score], place) => {
      const bar = element("progress", { max: 1, value: score });
      bar.setAttribute("aria-hidden", "true");
      list.append(element("li", { className: place ? "" : "best" },
        bar, element("span", {}, label), element("span", {}, `${(100 * score).toFixed(1)} %`)));
    });
    const more = Object.keys(answer.scores).length - 8;
    const rest = more > 0 ? [element("p", { className: "note" }, `and ${more} more labels`)] : [];
    result.replaceChildren(list, ...rest);
    showBatch(answer.batch);
  });
}

async function write(side, prompt, signal) {
  const { path, body } = requestOf(prompt, fieldsOf(prompt));
  const text = element("p", { className: "written" });
  $(`${side}-result`).replaceChildren(text);
  for await (const event of fetchEvents(path, body, signal)) {
    for (const choice of event.choices) text.append(choice.text);
    if (event.batch) showBatch(event.batch);
  }
}

function showBatch(batch) {
  const named = Object.entries(batch.prompts).map(([name, rows]) => `${rows} of ${name}`);
  if (batch.others) named.push(`${batch.others} of prompts of others`);
  const rows = batch.rows === 1 ? "One row" : `${batch.rows} rows`;
  $("batch-text").textContent = `${rows}, ${batch.tokens} tokens, in one call: ${named.join(", ")}.`;
  const squares = Object.entries(batch.prompts).flatMap(([name, count]) => {
    const side = SIDES.find((one) => $(one).value === name) || "mine";
    return Array(count).fill(`row ${side}`);
  });
  const others = Array(batch.others).fill("row");
  $("batch-rows").replaceChildren(...[...squares, ...others].slice(0, 256).map((className) =>
    element("span", { className })));
  $("batch").hidden = false;
}

// From the place of the answer to every token, soft token and prefix vector, in one layer.
async function showAttention(side) {
  const prompt = prompts.get($(side).value);
  const layer = Number($(`${side}-layer`).value) || null;
  const body = { prompt: prompt.id, fields: fieldsOf(prompt), layer };
  const asked = JSON.stringify(body);
  $(`${side}-from`).classList.remove("wrong");
  $(`${side}-from`).textContent = "The LM is asked.";
  let shown;
  try {
    shown = await fetchJson("/v1/attention", body);
  } catch (error) {
    forgetAttention(side);
    $(`${side}-from`).textContent = error.message;
    $(`${side}-from`).classList.add("wrong");
    return;
  }
  const now = prompts.get($(side).value);
  if (JSON.stringify({ prompt: now?.id, fields: now && fieldsOf(now), layer }) !== asked) return;
  fillLayers(side, shown);
  const place = shown.source === "answer" ? "the answer" : "the last token";
  $(`${side}-from`).textContent =
    `From the place of ${place}, layer ${shown.layer} of ${shown.layers}, ` +
    `the mean of ${shown.heads} heads.`;
  const most = Math.max(...shown.attended.map((one) => one.weight));
  $(`${side}-attended`).replaceChildren(...shown.attended.map((one) => drawnShare(one, most)));
}

function forgetAttention(side) {
  $(`${side}-attended`).replaceChildren();
  $(`${side}-from`).textContent = "The input has changed: answer it again.";
  $(`${side}-from`).classList.remove("wrong");
}

function fillLayers(side, shown) {
  const layers = Array.from({ length: shown.layers }, (_, number) => String(number + 1));
  if ($(`${side}-layer`).length !== layers.length) {
    $(`${side}-layer`).replaceChildren(...layers.map((layer) => new Option(layer, layer)));
  }
  $(`${side}-layer`).value = String(shown.layer);
}

// The deeper the colour the larger the share; the number stands below.
function drawnShare(one, most) {
  const name = one.kind === "token" ? one.text.trim() || "space" : `${one.kind} ${one.text}`;
  const node = element("li", { className: one.kind },
    element("span", { className: "name" }, name),
    element("span", { className: "share" }, `${(100 * one.weight).toFixed(1)} %`));
  node.style.setProperty("--share", `${(100 * one.weight) / most}%`);
  return node;
}

$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  begin();
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  ask();
});
$("ask").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) ask();
});
$("stop").addEventListener("click", () => running && running.abort());
SIDES.forEach((side) => {
  $(side).addEventListener("change", change);
  $(`${side}-near`).addEventListener("toggle", () => showWords(side));
  $(`${side}-layer`).addEventListener("change", () => showAttention(side));
  $(`${side}-attention`).addEventListener("toggle", () => {
    if ($(`${side}-attention`).open) showAttention(side);
  });
});
begin();
