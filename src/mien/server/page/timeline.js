// What each person of a video or camera showed over time: one lane per expression, darker where it is more probable.

import { classesOf, make, percent } from "./draw.js";
import { plural, t } from "./language.js";

const LANE = 16; // px; style.css has the same height
const MAX_GAP = 1.5; // seconds between two samples beyond which nothing is known of the time between
const SHOWN = 6; // people who are shown at once: those seen longest

/** Return seconds as m:ss, with tenths if asked. */
export function clock(seconds, tenths = false) {
  const rounded = tenths ? Math.round(seconds * 10) / 10 : Math.floor(seconds);
  const rest = (rounded % 60).toFixed(tenths ? 1 : 0).padStart(tenths ? 4 : 2, "0");
  return `${Math.floor(rounded / 60)}:${rest}`;
}

/** The timelines of a video's people. `onSeek` is called with a time, in seconds, that was clicked. */
export class People {
  constructor(onSeek) {
    this.onSeek = onSeek;
    this.people = new Map();
    this.shown = make("div", {});
    this.rest = make("details", { hidden: true }, make("summary", {}));
    const text = "Stronger: more probable. Grey: unsure. Empty: not seen. The percentages are shares of the person's frames.";
    const legend = make("p", { class: "muted legend" }, t(text));
    this.element = make("section", { class: "people", hidden: true }, make("h4", {}, t("Over time")), legend, this.shown, this.rest);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(this.element);
    this.rest.addEventListener("toggle", () => this.draw());
  }

  /** Show the rows from one second to another. */
  update(rows, start, end) {
    this.start = start;
    this.end = Math.max(end, start + 0.1);
    const tracks = Map.groupBy(rows, (row) => row.track);
    for (const [track, person] of this.people) if (!tracks.has(track)) (person.element.remove(), this.people.delete(track));
    const order = [...tracks].sort((a, b) => b[1].length - a[1].length);
    const leading = new Set(order.slice(0, SHOWN).map(([track]) => track));
    for (const [track, found] of [...tracks].sort((a, b) => a[0] - b[0])) {
      const person = this.people.get(track) ?? this.create(track, classesOf(found[0]));
      person.rows = found;
      person.describe();
      (leading.has(track) ? this.shown : this.rest).append(person.element);
    }
    this.rest.hidden = order.length <= SHOWN;
    this.rest.firstChild.textContent = plural(order.length - SHOWN, "{count} more person", "{count} more people");
    this.element.hidden = !order.length;
    this.draw();
  }

  /** Move the line that shows the time of the video; null hides it. */
  at(time) {
    const share = time === null ? null : (time - this.start) / (this.end - this.start);
    for (const { head } of this.people.values()) {
      head.hidden = share === null || share < 0 || share > 1;
      head.style.left = `${100 * (share ?? 0)}%`;
    }
  }

  create(track, classes) {
    const shares = new Map(classes.map((name) => [name, make("span", { class: "share" })]));
    const names = make("ul", {}, ...classes.map((name) => make("li", {}, make("span", { class: "name" }, t(name)), shares.get(name))));
    const canvas = make("canvas", { "aria-hidden": "true" });
    const head = make("div", { class: "head", hidden: true });
    const axis = make("div", { class: "axis", "aria-hidden": "true" });
    const words = make("p", { class: "muted" });
    const lanes = make("div", { class: "lanes" }, canvas, head, axis);
    const element = make("div", { class: "person" }, make("h5", {}, t("Person {track}", { track })), words, names, lanes);
    const person = { element, canvas, head, axis, classes, rows: [] };
    person.describe = () => {
      const { rows } = person;
      const share = (test) => rows.filter(test).length / rows.length;
      const sure = new Map(classes.map((name) => [name, share((row) => row.label === name && !row.unsure)]));
      for (const [name, value] of sure) shares.get(name).textContent = percent(value);
      const unsure = share((row) => row.unsure);
      const [most, value] = [...sure].reduce((a, b) => (b[1] > a[1] ? b : a));
      const mostly = unsure > value ? "unsure" : most;
      const values = { start: clock(rows[0].time, true), end: clock(rows.at(-1).time, true), share: percent(unsure) };
      const frames = plural(rows.length, "{count} frame", "{count} frames");
      const seen = t("{frames} from {start} to {end}, unsure in {share} of them.", { frames, ...values });
      words.textContent = `${t("Most often {label}.", { label: t(mostly) })} ${seen}`;
    };
    canvas.addEventListener("click", (event) => {
      this.onSeek?.(this.start + (event.offsetX / canvas.clientWidth) * (this.end - this.start));
    });
    this.people.set(track, person);
    return person;
  }

  draw() {
    for (const person of this.people.values()) this.drawPerson(person);
  }

  drawPerson({ canvas, axis, classes, rows }) {
    const width = canvas.clientWidth;
    if (!width) return;
    const scale = devicePixelRatio;
    canvas.width = width * scale;
    canvas.height = LANE * classes.length * scale;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const style = getComputedStyle(canvas);
    const perSecond = width / (this.end - this.start);
    const bins = Array.from({ length: Math.ceil(width / 2) }, () => null); // of 2 px
    rows.forEach((row, i) => {
      const usual = i ? row.time - rows[i - 1].time : 0.1;
      const length = i + 1 < rows.length ? rows[i + 1].time - row.time : Math.min(usual, this.end - row.time);
      const seconds = length > MAX_GAP ? Math.min(usual, MAX_GAP) : length;
      const first = Math.max(0, Math.floor(((row.time - this.start) * perSecond) / 2));
      const last = Math.max(first, Math.ceil(((row.time + seconds - this.start) * perSecond) / 2) - 1);
      for (let bin = first; bin <= Math.min(last, bins.length - 1); bin++) {
        bins[bin] ??= { count: 0, unsure: 0, sums: classes.map(() => 0) };
        bins[bin].count++;
        bins[bin].unsure += row.unsure;
        classes.forEach((name, k) => (bins[bin].sums[k] += row[name]));
      }
    });
    bins.forEach((bin, x) => {
      if (!bin) return;
      context.fillStyle = style.getPropertyValue(bin.unsure * 2 > bin.count ? "--unsure" : "--accent");
      classes.forEach((_, k) => {
        context.globalAlpha = (bin.sums[k] / bin.count) ** 0.75; // faint ones stay visible
        context.fillRect(2 * x, k * LANE + 1, 2, LANE - 2);
      });
    });
    this.drawAxis(axis, width);
  }

  drawAxis(axis, width) {
    const length = this.end - this.start;
    const step = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((each) => length / each <= width / 60) ?? 7200;
    const ticks = [];
    for (let time = Math.ceil(this.start / step) * step; time <= this.end; time += step) {
      const tick = make("span", {}, clock(time, step < 1));
      const share = (time - this.start) / length;
      tick.style.left = `${100 * share}%`;
      if (share * width > width - 20) tick.className = "last";
      ticks.push(tick);
    }
    axis.replaceChildren(...ticks);
  }
}
