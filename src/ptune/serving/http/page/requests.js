"use strict";
// What the page asks of the server, and the same requests as a program makes them.

let token = "";

function headers() {
  const all = { "Content-Type": "application/json" };
  if (token) all.Authorization = `Bearer ${token}`;
  return all;
}

async function fetchJson(path, body, signal) {
  const options = body ? { method: "POST", body: JSON.stringify(body) } : {};
  const answer = await fetch(path, { ...options, headers: headers(), signal });
  const document = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(document.detail), { status: answer.status });
  return document;
}

// The pieces of a text as the server sends them; each event as an object.
async function* fetchEvents(path, body, signal) {
  const answer = await fetch(path, {
    method: "POST", body: JSON.stringify(body), headers: headers(), signal,
  });
  if (!answer.ok) throw new Error((await answer.json()).detail);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const document = JSON.parse(data);
      if (document.error) throw new Error(document.detail);
      yield document;
    }
  }
}

function requestOf(prompt, fields) {
  if (prompt.task === "labels") {
    return { path: "/v1/classify", body: { rows: [{ prompt: prompt.id, fields }] } };
  }
  return { path: "/v1/completions", body: { model: prompt.id, fields, stream: true } };
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function asCurl(path, body) {
  const auth = token ? " \\\n  -H 'Authorization: Bearer TOKEN'" : "";
  return `curl ${location.origin}${path} \\\n  -H 'Content-Type: application/json'${auth} \\\n` +
    `  -d ${quoted(JSON.stringify(body))}`;
}

function asPython(path, body) {
  const key = token ? "TOKEN" : "none";
  if (path === "/v1/completions") {
    const fields = pythonOf(body.fields);
    return "from openai import OpenAI\n\n" +
      `client = OpenAI(base_url=${pythonOf(`${location.origin}/v1`)}, api_key=${pythonOf(key)})\n` +
      `answer = client.completions.create(\n    model=${pythonOf(body.model)}, prompt="",\n` +
      `    extra_body={"fields": ${fields}},\n)\nprint(answer.choices[0].text)`;
  }
  const auth = token ? '\n    "Authorization": "Bearer TOKEN",' : "";
  return "import json\nimport urllib.request\n\n" +
    `body = ${pythonOf(body)}\nheaders = {\n    "Content-Type": "application/json",${auth}\n}\n` +
    `url = ${pythonOf(location.origin + path)}\n` +
    "request = urllib.request.Request(url, json.dumps(body).encode(), headers)\n" +
    'print(json.load(urllib.request.urlopen(request))["answers"])';
}

// JSON is Python too, as long as no truth value and no null stands in it.
function pythonOf(value) {
  return JSON.stringify(value);
}
