// One turn of the transcript as an element. Whatever people, files and models say is set as text.

import { addLoadImage, annotated, TYPE, view } from "../comfy.js";
import { button, el } from "../dom.js";
import { featureGrid } from "../features.js";
import { addFeatures } from "./graph.js";
import { siblings, TAG } from "./transcript.js";

/** A picture by file: small, draggable onto Load Image, opens on click. */
export function picture(file, more = {}) {
  const image = el("img", {
    src: view(file), alt: file.label || file.filename, title: annotated(file), draggable: true,
    on: {
      dragstart: (e) => {
        e.stopPropagation();
        e.dataTransfer.setData(TYPE, JSON.stringify(file));
        e.dataTransfer.setData("text/uri-list", new URL(view(file), location.href).href);
        e.dataTransfer.effectAllowed = "copy";
      },
      error: () => image.replaceWith(el("span", { class: "wegen-lost", text: `${file.filename} is no longer there` })),
    },
    ...more,
  });
  return image;
}

/** Text with its tags shown as what they stand for. */
function spoken(turn) {
  const out = el("div", { class: "wegen-text" });
  let end = 0;
  for (const match of turn.text.matchAll(TAG)) {
    out.append(turn.text.slice(end, match.index), tag(turn, match[1].toLowerCase(), Number(match[2])));
    end = match.index + match[0].length;
  }
  out.append(turn.text.slice(end));
  return out;
}

function tag(turn, kind, k) {
  const file = turn.pictures[k - 1], box = turn.role === "assistant" ? turn.boxes[k - 1] : file?.box;
  const words = kind === "image" ? `image ${k}` : box ? `box ${k}` : `place ${k}`;
  const title = box && kind === "bbox" ? `left ${percent(box.x)}, top ${percent(box.y)}, width ${percent(box.width)}, height ${percent(box.height)}` : "";
  return el("span", { class: "wegen-tag", title }, [kind === "image" && file ? picture(file, { draggable: false, alt: "" }) : null, words]);
}

const percent = (v) => `${Math.round(v * 100)} %`;

/** The picture that was asked about, with the boxes of the answer drawn in. */
function located(turn, asked) {
  const file = asked?.pictures[0];
  if (!turn.boxes.length || !file) return null;
  return el("div", { class: "wegen-located" }, [
    picture(file),
    ...turn.boxes.map((b, i) => el("span", { class: `wegen-where colour-${i % 10}`, text: String(i + 1), style: {
      left: `${b.x * 100}%`, top: `${b.y * 100}%`, width: `${b.width * 100}%`, height: `${b.height * 100}%` } })),
  ]);
}

/** The picture before laid over the answer, up to a slider. */
function compared(before, after) {
  const over = picture(before, { class: "wegen-before", draggable: false, alt: "Before" });
  const slider = el("input", { type: "range", min: 0, max: 100, value: 50, aria: { label: "How much of the picture before is shown" },
    on: { input: () => box.style.setProperty("--at", `${slider.value}%`) } });
  const box = el("div", { class: "wegen-compare" }, [picture(after), over, slider]);
  return box;
}

/** All versions of an answer that have a picture, small and side by side; a click shows that one. Null where there is one alone. */
function sideBySide(turn, versions, act, busy) {
  if (versions.filter((t) => t.pictures.length).length < 2) return null;
  const at = versions.findIndex((t) => t.id === turn.id);
  return el("div", { class: "wegen-strip", role: "group", aria: { label: "Versions of this picture" } }, versions.map((t, i) => t.pictures.length > 0 &&
    el("button", { type: "button", class: "wegen-version", disabled: busy, title: `Version ${i + 1}, seed ${t.seed}`,
      aria: { label: `Show version ${i + 1}`, pressed: String(i === at) }, on: { click: () => act.choose(turn, i - at) } }, [picture(t.pictures[0])])));
}

/** `act`: {edit, again, branch, remove, choose, attach} each called with the turn; `asked`: the message before an answer; `before`: the picture that
 *  it changed, or null. */
export function turnElement(session, turn, asked, before, act, busy) {
  const mine = turn.role === "user", versions = siblings(session.talk, turn.id), at = versions.findIndex((t) => t.id === turn.id);
  const grid = turn.cells.length ? featureGrid(turn.cells.length) : null;
  grid?.fill(turn.cells);
  const who = mine ? "You" : "WeGen";
  const head = el("div", { class: "wegen-who" }, [
    el("b", { text: who }),
    versions.length > 1 && el("span", { class: "wegen-versions" }, [
      button("angle-left", "The version before", () => act.choose(turn, -1), { disabled: busy || at === 0 }),
      el("span", { text: `${at + 1}/${versions.length}`, title: `Version ${at + 1} of ${versions.length}` }),
      button("angle-right", "The next version", () => act.choose(turn, 1), { disabled: busy || at === versions.length - 1 }),
    ]),
    el("span", { class: "wegen-actions" }, [
      mine ? button("pencil", "Edit this message: a new version, the old one stays", () => act.edit(turn), { disabled: busy })
        : button("refresh", "Answer again with another seed", () => act.again(turn), { disabled: busy }),
      !mine && button("share-alt", "Go on from here: what follows stays as another branch", () => act.branch(turn), { disabled: busy }),
      !mine && before && turn.pictures.length > 0 && button("arrows-h", "Compare with the picture before", (e) => {
        const made = e.currentTarget.closest(".wegen-turn").querySelector(".wegen-made"), open = made.querySelector(".wegen-compare");
        e.currentTarget.setAttribute("aria-pressed", String(!open));
        (open ?? made.firstChild).replaceWith(open ? picture(turn.pictures[0]) : compared(before, turn.pictures[0]));
      }),
      !mine && turn.pictures.length > 0 && button("paperclip", "Attach this picture to the next message", () => act.attach(turn.pictures[0])),
      turn.pictures.length > 0 && button("image", "Copy the picture into the graph (Load Image)", () => addLoadImage(turn.pictures[0], session.node)),
      turn.pictures.length > 0 && button("table", "Copy its features into the graph (Load Image and EVA-CLIP Encode)", () => addFeatures(turn.pictures[0], session.node)),
      button("trash", mine ? "Delete this message and what follows" : "Delete this answer and what follows", () => act.remove(turn), { disabled: busy }),
    ]),
  ]);
  const pictures = turn.pictures.length
    ? el("div", { class: mine ? "wegen-given" : "wegen-made" }, [...turn.pictures.map((file) => picture(file)), grid]) : null;
  return el("article", { class: `wegen-turn ${turn.role}`, aria: { label: `${who}, turn` }, data: { turn: turn.id } },
    [head, mine && pictures, turn.text && spoken(turn), !mine && pictures, !mine && sideBySide(turn, versions, act, busy), !mine && located(turn, asked)]);
}

/** The answer while it is made. `show(progress)` brings it up to date. */
export function growingElement() {
  const grid = featureGrid(64), text = el("div", { class: "wegen-text" }), preview = el("img", { alt: "The picture so far", hidden: true });
  const bar = el("progress", { max: 1, value: 0, aria: { label: "Progress" } }), state = el("span", { class: "wegen-state" });
  grid.hidden = true;
  const element = el("article", { class: "wegen-turn assistant growing", aria: { label: "WeGen, answering", busy: "true" } }, [
    el("div", { class: "wegen-who" }, [el("b", { text: "WeGen" }), state]), text, el("div", { class: "wegen-made" }, [preview, grid]), bar,
  ]);
  element.show = ({ kind, i = 0, n = 0, text: words, cells, picture: url }) => {
    const said = { queued: "waiting in the queue", text: "writes", features: `draws ${i} of ${n} features`, paint: `paints ${i}/${n}` }[kind];
    state.textContent = said ?? `${kind} ${i}/${n}`;
    if (words !== undefined && text.textContent !== words) text.textContent = words;
    grid.hidden = !cells;
    if (cells) grid.fill(cells);
    if (kind === "text" || !n) bar.removeAttribute("value");
    else bar.value = i / n;
    if (typeof url === "string" && url.startsWith("data:image/jpeg;base64,")) {
      preview.src = url;
      preview.hidden = false;
    }
  };
  return element;
}
