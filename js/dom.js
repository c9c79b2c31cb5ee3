// Making elements. Text is only ever set as text: nothing here, or anywhere in js/, parses HTML.

/** el("button", {class, text, title, on: {click}, aria: {label}, …properties}, children) */
export function el(tag, options = {}, children = []) {
  const node = document.createElement(tag);
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (key === "class") node.className = value;
    else if (key === "text") node.textContent = value;
    else if (key === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else if (key === "aria") for (const [name, said] of Object.entries(value)) node.setAttribute(`aria-${name}`, said);
    else if (key === "data") Object.assign(node.dataset, value);
    else if (key === "style") Object.assign(node.style, value);
    else if (key in node) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...[children].flat().filter(Boolean));
  return node;
}

/** A small button with one of the frontend's icons; its title is what a screen reader says. */
export const button = (icon, title, click, more = {}) =>
  el("button", { type: "button", class: "wegen-button", title, aria: { label: title }, ...more, on: { click, ...(more.on ?? {}) } }, [
    icon.length > 2 ? el("i", { class: `pi pi-${icon}`, aria: { hidden: "true" } }) : icon,
  ]);

/** What hides an element's keys, drops and wheel from the graph around it. */
export function own(element, events = ["keydown", "keyup", "copy", "cut", "paste", "contextmenu", "dblclick"]) {
  for (const event of events) element.addEventListener(event, (e) => e.stopPropagation());
}

/** The picture files of a drop or a paste. */
export const picturesOf = (transfer) => [...(transfer?.files ?? [])].filter((file) => file.type.startsWith("image/"));
