"use strict";
// Shows openapi.json, and sends what is tried. Everything is put in as text, never as HTML.

const METHODS = ["get", "post", "put", "patch", "delete"];
const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children.filter((child) => child !== null));
  return made;
};
// Text with what stands in `code` and **bold** as such, and its paragraphs in one line each.
const prose = (text) => text.replace(/(\S)\n(?=\S)/g, "$1 ").split(/(`[^`]+`|\*\*[^*]+\*\*)/).map((part) =>
  /^`.+`$/s.test(part) ? element("code", { textContent: part.slice(1, -1) })
    : /^\*\*.+\*\*$/s.test(part) ? element("strong", { textContent: part.slice(2, -2) }) : part);
let description = null;

const resolve = (value) => {
  if (!value || !value.$ref) return value;
  return value.$ref.slice(2).split("/").reduce((at, part) => at[part], description);
};

// One line that says what a schema lets pass.
const kindOf = (given) => {
  const schema = resolve(given) || {};
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const several = schema.anyOf || schema.oneOf;
  if (several) return several.map(kindOf).join(" | ");
  if (schema.type === "array" || schema.items) return `[${kindOf(schema.items || {})}]`;
  const kinds = [].concat(schema.type || "anything").join(" | ");
  const bounds = [];
  if (schema.format) bounds.push(schema.format);
  if (schema.minimum !== undefined) bounds.push(`from ${schema.minimum}`);
  if (schema.maximum !== undefined) bounds.push(`to ${schema.maximum}`);
  if (schema.maxLength !== undefined) bounds.push(`at most ${schema.maxLength} characters`);
  if (schema.default !== undefined) bounds.push(`by default ${JSON.stringify(schema.default)}`);
  return bounds.length ? `${kinds} (${bounds.join(", ")})` : kinds;
};

const membersOf = (given) => {
  const schema = resolve(given) || {};
  const own = schema.properties || {};
  if (!Object.keys(own).length) {
    const several = (schema.anyOf || []).map(membersOf).filter(Boolean);
    return several.length ? element("div", {}, ...several) : element("p", {}, element("code", { textContent: kindOf(schema) }));
  }
  const rows = Object.entries(own).map(([name, one]) =>
    element("tr", {},
      element("td", {}, element("code", { textContent: name + ((schema.required || []).includes(name) ? "" : "?") })),
      element("td", {}, element("code", { textContent: kindOf(one) })),
      element("td", {}, ...prose((resolve(one) || {}).description || ""))));
  return element("table", {}, element("tbody", {}, ...rows));
};

const send = async (method, path, operation, fields, body, output) => {
  let filled = path;
  const query = new URLSearchParams();
  const headers = {};
  for (const [parameter, input] of fields) {
    if (!input.value) continue;
    if (parameter.in === "path") filled = filled.replace(`{${parameter.name}}`, input.value.split("/").map(encodeURIComponent).join("/"));
    else if (parameter.in === "query") query.set(parameter.name, input.value);
    else headers[parameter.name] = input.value;
  }
  if (filled.includes("{")) { output.textContent = "Fill in what stands in the path."; return; }
  const token = document.getElementById("token").value;
  if (token && operation["x-role"]) headers.Authorization = `Bearer ${token}`;
  const sent = { method: method.toUpperCase(), headers, credentials: "same-origin" };
  if (body && body.value.trim()) { headers["Content-Type"] = "application/json"; sent.body = body.value; }
  const root = location.pathname.replace(/\/docs\/?$/, "");
  const target = root + filled + (query.size ? `?${query}` : "");
  output.hidden = false;
  output.textContent = `${sent.method} ${target} …`;
  try {
    const answer = await fetch(target, sent);
    const head = [...answer.headers].map(([name, value]) => `${name}: ${value}`).join("\n");
    let text = "";
    if ((answer.headers.get("content-type") || "").includes("event-stream")) { text = "(a stream: use a program that listens)"; await answer.body.cancel(); }
    else text = await answer.text();
    try { text = JSON.stringify(JSON.parse(text), null, 2); } catch { /* it is no JSON */ }
    output.textContent = `${answer.status} ${answer.statusText}\n${head}\n\n${text}`;
  } catch (error) { output.textContent = `It could not be sent: ${error.message}`; }
};

const bodyOf = (operation) => {
  const content = operation.requestBody ? operation.requestBody.content["application/json"] : null;
  return content || null;
};

const show = (method, path, operation) => {
  const inner = element("div");
  const whole = element("details", { className: "operation" },
    element("summary", {},
      element("span", { className: `method ${method}`, textContent: method.toUpperCase() }),
      element("span", { className: "path", textContent: path }),
      element("span", { textContent: operation.summary }),
      element("span", { className: "role", textContent: operation["x-role"] || "no token" })),
    inner);
  whole.dataset.words = `${method} ${path} ${operation.summary} ${operation.operationId}`.toLowerCase();
  whole.addEventListener("toggle", () => { if (whole.open && !inner.hasChildNodes()) fill(inner, method, path, operation); });
  return whole;
};

const fill = (inner, method, path, operation) => {
  inner.append(element("p", {}, ...prose(operation.description || "")));
  const fields = [];
  if (operation.parameters.length) {
    const rows = operation.parameters.map((given) => {
      const parameter = resolve(given);
      const input = element("input", { placeholder: parameter.required ? "required" : "" });
      input.setAttribute("aria-label", parameter.name);
      fields.push([parameter, input]);
      return element("tr", {},
        element("td", {}, element("code", { textContent: parameter.name })), element("td", { textContent: parameter.in }),
        element("td", {}, input), element("td", {}, ...prose([parameter.description, kindOf(parameter.schema)].filter(Boolean).join(": "))));
    });
    inner.append(element("h3", { textContent: "Parameters" }), element("table", {}, element("tbody", {}, ...rows)));
  }
  const content = bodyOf(operation);
  let body = null;
  if (content) {
    body = element("textarea", { value: content.example ? JSON.stringify(content.example, null, 2) : "" });
    body.setAttribute("aria-label", "body");
    inner.append(element("h3", { textContent: "Body" }), membersOf(content.schema), body);
  }
  const output = element("pre", { hidden: true });
  output.setAttribute("aria-live", "polite");
  const button = element("button", { type: "button", textContent: "Send" });
  button.addEventListener("click", () => send(method, path, operation, fields, body, output));
  inner.append(element("p", {}, button), output, element("h3", { textContent: "Answers" }));
  for (const [status, given] of Object.entries(operation.responses)) {
    const answer = resolve(given);
    const media = Object.values(answer.content || {})[0];
    inner.append(element("details", {},
      element("summary", { textContent: `${status} ${answer.description}` }), media ? membersOf(media.schema) : null));
  }
};

const begin = async () => {
  const about = document.getElementById("about");
  try {
    const answer = await fetch("openapi.json");
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    description = await answer.json();
  } catch (error) { about.textContent = `The description could not be read: ${error.message}`; return; }
  about.replaceChildren(...prose(`Version ${description.info.version}. ${description.info.description}`));
  const main = document.getElementById("operations");
  for (const { name } of description.tags) {
    const section = element("section", {}, element("h2", { textContent: name }));
    for (const [path, methods] of Object.entries(description.paths))
      for (const method of METHODS)
        if (methods[method] && methods[method].tags[0] === name) section.append(show(method, path, methods[method]));
    main.append(section);
  }
  document.getElementById("find").addEventListener("input", ({ target }) => {
    const words = target.value.toLowerCase().split(/\s+/);
    for (const one of document.querySelectorAll("details.operation")) one.hidden = !words.every((word) => one.dataset.words.includes(word));
    for (const section of document.querySelectorAll("section")) section.hidden = !section.querySelector("details.operation:not([hidden])");
  });
};

document.getElementById("access").addEventListener("submit", (event) => event.preventDefault());
begin();
