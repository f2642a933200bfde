// The OpenAPI description of this agent, for people.

import { element, find, setText, tell } from "./dom.js";
import { address, askJson, reason } from "./requests.js";

const TOKEN = '-H "Authorization: Bearer $TOKEN"';
const BODY_OPTIONS = {
  "image/jpeg": "--data-binary @picture.jpg",
  "multipart/form-data": "-F file=@picture.jpg",
};

const commands = [];

show();

async function show() {
  let api;
  try {
    api = await askJson("openapi.json");
  } catch (error) {
    tell(find("trouble"), `${reason(error)} Reload the page to try again.`);
    return;
  }
  setText(find("title"), `${api.info.title} API`);
  setText(find("about"), `version ${api.info.version}`);
  setText(find("description"), api.info.description);
  const groups = byTag(api);
  find("operations").replaceChildren(...[...groups].map(([tag, operations]) => links(tag, operations)));
  find("groups").replaceChildren(...[...groups].map(([tag, operations]) => group(api, tag, operations)));
  find("token").checked = (api.security ?? []).length > 0;
  find("token").addEventListener("change", writeCommands);
  writeCommands();
  if (location.hash) document.querySelector(`#${CSS.escape(location.hash.slice(1))}`)?.scrollIntoView();
}

function byTag(api) {
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push({ path, method, ...operation });
    }
  }
  return groups;
}

function links(tag, operations) {
  const items = operations.map((operation) => {
    const link = element("a", { href: `#${operation.operationId}` }, method(operation), element("span", {}, operation.path));
    return element("li", {}, link);
  });
  return element("div", {}, element("h2", {}, tag), element("ul", {}, ...items));
}

function group(api, tag, operations) {
  const title = element("h2", {}, tag);
  return element("section", { "aria-label": tag }, title, ...operations.map((each) => article(api, each)));
}

function article(api, operation) {
  const parts = [
    element("h3", {}, method(operation), " ", element("code", {}, operation.path)),
    element("p", {}, ...prose(operation.description ?? operation.summary)),
    command(operation),
  ];
  const parameters = operation.parameters ?? [];
  if (parameters.length > 0) parts.push(element("h4", {}, "Parameters"), parameterTable(api, parameters));
  if (operation.requestBody) parts.push(element("h4", {}, "Body"), bodies(api, operation.requestBody));
  parts.push(element("h4", {}, "Answers"), ...answers(api, operation.responses));
  return element("article", { class: "panel operation", id: operation.operationId }, ...parts);
}

function method(operation) {
  return element("span", { class: "method", "data-method": operation.method }, operation.method.toUpperCase());
}

function parameterTable(api, parameters) {
  const rows = parameters.map((given) => {
    const parameter = resolved(api, given);
    const cells = [
      element("th", { scope: "row" }, element("code", {}, parameter.name)),
      element("td", {}, parameter.required ? `${parameter.in}, needed` : parameter.in),
      element("td", {}, kind(api, parameter.schema)),
      element("td", {}, ...prose(parameter.description ?? "")),
    ];
    return element("tr", {}, ...cells);
  });
  const made = element("table", {}, head("name", "where", "kind", "meaning"), element("tbody", {}, ...rows));
  return element("div", { class: "scroll" }, made);
}

function head(...titles) {
  const cells = titles.map((title) => element("th", { scope: "col" }, title));
  return element("thead", {}, element("tr", {}, ...cells));
}

function bodies(api, given) {
  const items = Object.entries(resolved(api, given).content).map(([type, { schema }]) => {
    const fields = Object.entries(resolved(api, schema ?? {}).properties ?? {});
    const told = fields.map(([name, field]) => `${name}: ${kind(api, field)}`).join(", ") || kind(api, schema);
    return element("li", {}, element("code", {}, type), ` ${told}`);
  });
  return element("ul", {}, ...items);
}

function answers(api, responses) {
  const [refused, granted] = [[], []];
  for (const [status, given] of Object.entries(responses)) {
    const response = resolved(api, given);
    (status < "300" ? granted : refused).push({ status, response });
  }
  const shown = granted.map(({ status, response }) => {
    const told = element("p", {}, element("b", {}, status), " ", ...prose(response.description));
    return element("div", { class: "answer" }, told, ...contents(response.content ?? {}));
  });
  if (refused.length === 0) return shown;
  const rows = refused.map(({ status, response }) => {
    const meaning = element("td", {}, ...prose(response.description));
    const types = Object.keys(response.content ?? {}).join(", ");
    return element("tr", {}, element("th", { scope: "row" }, status), meaning, element("td", {}, types));
  });
  const made = element("table", {}, head("status", "refused because", "as"), element("tbody", {}, ...rows));
  return [...shown, element("div", { class: "scroll" }, made), ...problemExample(refused)];
}

// All refusals look alike: one is shown.
function problemExample(refused) {
  const type = "application/problem+json";
  const one = refused.find(({ response }) => response.content?.[type]?.example);
  return one ? [example(`a refusal, ${one.status}`, one.response.content[type].example, false)] : [];
}

function contents(content) {
  return Object.entries(content).flatMap(([type, { example: one, examples = {} }]) => {
    const many = Object.entries(examples).map(([name, { value }]) => example(`${type}, ${name}`, value, false));
    if (many.length > 0) return many;
    return [one === undefined ? element("p", {}, element("code", {}, type)) : example(type, one, true)];
  });
}

function example(title, value, isOpen) {
  const text = typeof value === "string" ? value : JSON.stringify(value, null, 1);
  const summary = element("summary", {}, element("code", {}, title));
  return element("details", { open: isOpen }, summary, element("pre", { tabindex: "0" }, text));
}

// A line for the shell, and a button that copies it.
function command(operation) {
  const text = element("code", { tabindex: "0" });
  const button = element("button", { type: "button", "aria-label": `copy the command for ${operation.path}` }, "Copy");
  button.addEventListener("click", () => copy(text, button));
  commands.push({ text, operation });
  return element("div", { class: "command" }, text, button);
}

function writeCommands() {
  for (const { text, operation } of commands) setText(text, curl(operation, find("token").checked));
}

function curl({ path, method, parameters = [], requestBody, responses }, withToken) {
  const filled = path.replace(/\{(\w+)\}/g, (_, name) => {
    const parameter = parameters.find((each) => each.name === name);
    return parameter?.schema?.examples?.[0] ?? parameter?.examples?.[0] ?? name.toUpperCase();
  });
  const words = ["curl"];
  if (withToken) words.push(TOKEN);
  if (requestBody) words.push(BODY_OPTIONS[Object.keys(requestBody.content)[0]] ?? "");
  else if (method !== "get") words.push(`-X ${method.toUpperCase()}`);
  const types = Object.keys(responses["200"]?.content ?? {});
  if (types[0]?.startsWith("image/")) words.push("-o picture.jpg");
  if (types[0]?.startsWith("multipart/")) words.push("-N -o stream.mjpg");
  words.push(address(filled.replace(/^\//, "")));
  return words.join(" ");
}

// The clipboard's own interface exists only on localhost and over TLS, and asks; this old one works everywhere.
function copy(text, button) {
  const selection = getSelection();
  selection.selectAllChildren(text);
  if (!document.execCommand("copy")) return; // it is selected: people can copy it themselves
  selection.removeAllRanges();
  button.textContent = "Copied";
  setTimeout(() => setText(button, "Copy"), 1500);
}

// What a schema admits, in a few words.
function kind(api, given) {
  const schema = resolved(api, given ?? {});
  const choices = (schema.anyOf ?? schema.oneOf)?.filter((each) => each.type !== "null");
  let text = choices ? choices.map((each) => kind(api, each)).join(" or ") : schemaType(api, schema);
  if (schema.default !== undefined && schema.default !== null) text += `, ${schema.default} unless given`;
  return text;
}

function schemaType(api, schema) {
  if (schema.enum) return schema.enum.join(" or ");
  if (schema.format === "binary") return "the picture's bytes";
  if (schema.type === "boolean") return "true or false";
  if (schema.type === "array") return `list of ${kind(api, schema.items)}`;
  if (schema.minimum !== undefined && schema.maximum !== undefined) {
    return `${schema.type} from ${schema.minimum} to ${schema.maximum}`;
  }
  return schema.type ?? "anything";
}

function resolved(api, node) {
  if (!node.$ref) return node;
  return node.$ref.slice(2).split("/").reduce((at, key) => at[key.replaceAll("~1", "/").replaceAll("~0", "~")], api);
}

// A description's text; what stands between backticks is code.
function prose(text) {
  return text.split(/`+([^`]+)`+/).map((part, index) => (index % 2 ? element("code", {}, part) : part));
}
