// One result: a picture, a video or a camera with its faces, its progress and its errors.

import { FaceList, drawBoxes, link, make } from "./draw.js";
import { t } from "./language.js";
import { People } from "./timeline.js";

const SMALLEST = 240; // px; smaller pictures are shown at this width

let cards = 0;

export class Card {
  /** `onRemove` is called when the user removes the card. */
  constructor(name, what, onRemove) {
    const id = `card-${++cards}`;
    this.name = name;
    this.rows = [];
    this.moving = what === "Person";
    this.note = make("p", { class: "muted note" });
    this.action = make("button", { type: "button", hidden: true });
    const remove = make("button", { type: "button", class: "remove", "aria-label": t("Remove {name}", { name }) }, t("Remove"));
    remove.addEventListener("click", onRemove);
    this.progress = make("progress", { max: 1, "aria-label": t("Progress of {name}", { name }), hidden: true });
    this.problem = make("p", { class: "problem", hidden: true });
    this.boxes = make("div", { class: "boxes", "aria-hidden": "true" });
    this.stage = make("div", { class: "stage" }, this.boxes);
    this.empty = make("p", { class: "muted empty", hidden: true });
    this.list = new FaceList(what, this.moving);
    this.people = new People((time) => this.onSeek?.(time));
    link(this.boxes, this.list.element);
    const head = make("header", {}, make("h3", { id }, name), this.note, make("div", { class: "row" }, this.action, remove));
    this.body = make("div", { class: "body", hidden: true }, this.stage, make("div", { class: "found" }, this.empty, this.list.element));
    this.element = make("article", { class: "card", "aria-labelledby": id }, head, this.progress, this.problem, this.body, this.people.element);
  }

  /** Show how far it is, 0 to 1; null if that is not known; undefined if it has ended. */
  setProgress(share, note) {
    this.progress.hidden = share === undefined;
    if (share === null) this.progress.removeAttribute("value");
    else if (share !== undefined) this.progress.value = share;
    if (note !== undefined) this.note.textContent = note;
  }

  setProblem(text) {
    this.problem.hidden = !text;
    this.problem.textContent = text ?? "";
  }

  /** Offer a button; without a label, none. */
  setAction(label, action) {
    this.action.hidden = !label;
    if (!label) return;
    this.action.textContent = label;
    this.action.setAttribute("aria-label", `${label} ${this.name}`);
    this.action.onclick = action;
  }

  /** Show the picture or the video; if the browser cannot, its size with the boxes alone. */
  setMedia(element) {
    this.media?.remove();
    this.media = element;
    this.stage.prepend(element);
    this.body.hidden = false;
    const fit = () => {
      const width = element.naturalWidth ?? element.videoWidth;
      this.stage.classList.toggle("small", width > 0 && width < SMALLEST);
    };
    element.addEventListener(element.tagName === "VIDEO" ? "loadedmetadata" : "load", fit);
    element.addEventListener("error", () => this.stage.classList.add("blind"));
  }

  /** Return whether the browser cannot show the picture or video. */
  isBlind() {
    return this.stage.classList.contains("blind");
  }

  /** Show the faces of a picture or frame. */
  show(answer, limit, mirrored = false) {
    this.stage.style.aspectRatio = `${answer.width} / ${answer.height}`;
    this.stage.classList.add("sized"); // also if the browser cannot show the picture
    this.body.classList.toggle("wide", answer.faces.length > 4);
    this.stage.classList.toggle("crowded", answer.faces.length > 12);
    drawBoxes(this.boxes, answer, mirrored);
    this.list.update(answer.faces, limit);
    this.empty.hidden = answer.faces.length > 0;
    this.empty.textContent = t(this.moving ? "No face here." : "No face was found. Small, turned or covered faces are often missed.");
  }

  /** Let boxes, list and timelines follow a video as it plays. */
  follow(video, rows, limit) {
    const frames = [...Map.groupBy(rows, (row) => row.time)].sort((a, b) => a[0] - b[0]);
    const gaps = frames.slice(1).map(([time], i) => time - frames[i][0]);
    const longest = Math.max(0.05, 1.5 * Math.min(0.5, ...gaps)); // a frame counts until the next one
    const show = () => {
      const time = video.currentTime;
      const index = frames.findLastIndex(([each]) => each <= time + 0.02);
      const faces = index >= 0 && time - frames[index][0] <= longest ? frames[index][1] : [];
      this.show({ width: video.videoWidth, height: video.videoHeight, faces }, limit);
      this.people.at(time);
    };
    const each = () => (show(), video.requestVideoFrameCallback?.(each));
    video.requestVideoFrameCallback?.(each);
    for (const name of ["timeupdate", "seeked", "loadeddata"]) video.addEventListener(name, show);
    this.onSeek = (time) => (video.currentTime = time);
    show();
  }
}
