"use strict";
// The page at /docs, drawn from the server's own OpenAPI document.

function element(name, properties = {}, ...children) {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
}

function typeOf(schema) {
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" or ");
  if (schema.anyOf) return schema.anyOf.map(typeOf).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items || {})}`;
  return schema.type || "anything";
}

function tableOf(name, schema) {
  const rows = Object.entries(schema.properties || {}).map(([key, value]) => {
    const needed = (schema.required || []).includes(key) ? " (needed)" : "";
    return element("tr", {}, element("th", { scope: "row" }, key + needed),
      element("td", {}, typeOf(value)), element("td", {}, value.description || ""));
  });
  return element("details", {}, element("summary", {}, name),
    element("table", {}, element("tbody", {}, ...rows)));
}

async function begin() {
  const api = await (await fetch("/openapi.json")).json();
  const paths = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => {
      const body = operation.requestBody?.content["application/json"]?.schema;
      const takes = body ? [element("p", { className: "note" }, `Takes ${typeOf(body)}.`)] : [];
      return element("section", {}, element("h2", {}, `${method.toUpperCase()} ${path}`),
        element("p", {}, operation.description || operation.summary), ...takes);
    }));
  const names = Object.keys(api.components.schemas).filter((name) => !/Validation/.test(name));
  const schemas = names.map((name) => tableOf(name, api.components.schemas[name]));
  document.getElementById("paths").replaceChildren(...paths, ...schemas);
}

begin();
