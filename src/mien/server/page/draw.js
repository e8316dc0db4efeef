// How faces are shown: boxes over the picture, and a list with labels, words and bars.

import { either, t } from "./language.js";

/** Return an element; attributes that are null or false are left out. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

/** Return the classes: the columns that follow `set`. */
export function classesOf(face) {
  const names = Object.keys(face);
  return names.slice(names.indexOf("set") + 1);
}

/** Return a share as text. Unsure ones are rounded down, so that none seems to reach the limit. */
export const percent = (share, down = false) => `${Math[down ? "floor" : "round"](share * 100)}\u00a0%`;

function likely(confidence) {
  if (confidence >= 0.9) return t("very likely");
  if (confidence >= 0.7) return t("likely");
  return t(confidence >= 0.5 ? "fairly likely" : "the most likely");
}

/** Return the answer for one face in words, as a screen reader says it. */
export function answer(face) {
  const share = percent(face.confidence, face.unsure);
  const label = t(face.label);
  return face.unsure ? t("unsure, perhaps {label}, {share}", { label, share }) : `${label}, ${likely(face.confidence)}, ${share}`;
}

/** Return why an answer is unsure, and what else it may be. */
function why(face, limit) {
  const reason =
    face.confidence < limit
      ? t("no expression reaches {share}", { share: percent(limit) })
      : face.confidence < limit + 0.2
        ? t("a part of the face seems hidden or hard to see, so {share} would be needed", { share: percent(limit + 0.2) })
        : t("the face is too blurred or too noisy to trust an answer");
  const sorted = classesOf(face).sort((a, b) => face[b] - face[a]);
  let together = 0;
  const cut = sorted.findIndex((name) => (together += face[name]) >= 0.9);
  const names = face.set ? face.set.split("; ") : sorted.slice(0, cut < 0 ? sorted.length : cut + 1);
  const sum = names.reduce((total, name) => total + face[name], 0);
  const listed = either(names.map((name) => t(name)));
  const others = names.length > 1 ? ` ${t("It could be {labels} (together {share}).", { labels: listed, share: percent(sum) })}` : "";
  return t("Unsure: {reason}.", { reason }) + others;
}

/** Draw the boxes of a picture's faces into a layer that covers it. */
export function drawBoxes(layer, { width, height, faces }, mirrored = false) {
  const boxes = faces.filter((face) => face.left !== null).map((face) => {
    const number = face.track ?? face.face;
    const box = make("div", { class: face.unsure ? "box unsure" : "box", "data-number": number }, make("span", {}, `${number}`));
    const left = mirrored ? width - face.right : face.left;
    box.style.left = `${(100 * left) / width}%`;
    box.style.top = `${(100 * face.top) / height}%`;
    box.classList.toggle("at-top", face.top < 0.04 * height);
    box.style.width = `${(100 * (face.right - face.left)) / width}%`;
    box.style.height = `${(100 * (face.bottom - face.top)) / height}%`;
    return box;
  });
  layer.replaceChildren(...boxes);
}

/** The list of faces next to a picture. A face that stays from frame to frame keeps its element. */
export class FaceList {
  /** `what` is Face or Person; `moving` keeps the bars in the order of the classes, so that they do not jump. */
  constructor(what, moving) {
    this.what = what;
    this.moving = moving;
    this.element = make("ol", { class: "faces" });
    this.items = new Map();
  }

  update(faces, limit) {
    const open = faces.length <= 4;
    this.element.classList.toggle("many", !open);
    const items = new Map();
    for (const face of faces.toSorted((a, b) => (a.track ?? a.face) - (b.track ?? b.face))) {
      const number = face.track ?? face.face;
      const item = this.items.get(number) ?? this.create(number, classesOf(face), open);
      item.update(face, limit);
      items.set(number, item);
    }
    for (const [number, item] of this.items) if (!items.has(number)) item.element.remove();
    [...items.values()].forEach((item, i) => {
      if (this.element.children[i] !== item.element) this.element.insertBefore(item.element, this.element.children[i] ?? null);
    });
    this.items = items;
  }

  create(number, classes, open) {
    const label = make("strong", { class: "label" });
    const before = make("span", { class: "before" });
    const sure = make("span", { class: "sure" });
    const because = make("p", { class: "why" });
    const bars = new Map(classes.map((name) => {
      const fill = make("span", { class: "fill" });
      const share = make("span", { class: "share" });
      const track = make("span", { class: "track", "aria-hidden": "true" }, fill);
      return [name, { row: make("li", {}, make("span", { class: "name" }, t(name)), track, share), fill, share }];
    }));
    const list = make("ul", { class: "bars", "aria-label": t("Probability of each expression") }, ...[...bars.values()].map((bar) => bar.row));
    const badge = make("span", { class: "number" }, make("span", { class: "unseen" }, `${t(this.what)} `), `${number}`);
    const summary = make("summary", {}, badge, make("span", { class: "answer" }, before, label, sure));
    const element = make("li", { class: "face", "data-number": number }, make("details", { open }, summary, because, list));

    const update = (face, limit) => {
      element.classList.toggle("unsure", face.unsure);
      before.textContent = face.unsure ? `${t("Unsure, perhaps")} ` : "";
      label.textContent = t(face.label);
      sure.textContent = ` ${face.unsure ? "" : `${likely(face.confidence)}, `}${percent(face.confidence, face.unsure)}`;
      because.hidden = !face.unsure;
      if (face.unsure) because.textContent = why(face, limit);
      for (const [name, { row, fill, share }] of bars) {
        row.classList.toggle("top", name === face.label);
        fill.style.width = `${100 * face[name]}%`;
        share.textContent = percent(face[name], face.unsure);
      }
      if (!this.moving) list.append(...classes.toSorted((a, b) => face[b] - face[a]).map((name) => bars.get(name).row));
    };
    return { element, update };
  }
}

/** Mark a face's box while its entry in the list is pointed at or focused, and the entry while the box is. */
export function link(layer, list) {
  const mark = (event) => {
    const number = event.target.closest?.("[data-number]")?.dataset.number;
    for (const each of [...layer.children, ...list.children]) each.classList.toggle("active", each.dataset.number === number);
  };
  for (const element of [layer, list]) {
    for (const name of ["pointerover", "pointerout", "focusin"]) element.addEventListener(name, name === "pointerout" ? () => mark({ target: layer }) : mark);
  }
  layer.addEventListener("click", (event) => {
    const number = event.target.closest("[data-number]")?.dataset.number;
    const entry = [...list.children].find((each) => each.dataset.number === number);
    if (!entry) return;
    entry.querySelector("details").open = true;
    entry.scrollIntoView({ block: "nearest" });
  });
}
