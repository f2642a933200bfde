// Elements whose texts are only ever text: what a model calls its labels cannot become markup.

export const find = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// Pairs of name and value as a description list; values are texts or elements.
export function facts(pairs) {
  const rows = pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value)));
  return element("dl", { class: "facts" }, ...rows);
}

// Change a text only when it differs: screen readers and selections are left alone.
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

export function tell(target, text) {
  target.hidden = !text;
  setText(target, text || "");
}
