// The page: takes pictures, videos and the camera, has them recognised by the server or on this device, and shows the results.

import { Card } from "./card.js";
import { answer as inWords, make, percent } from "./draw.js";
import { plural, t, translatePage } from "./language.js";
import { Device } from "./ondevice.js";
import { Problem, Server, canvasOf, sleep } from "./server.js";
import { csv, download } from "./table.js";

const AT_ONCE = 3; // pictures that are sent at the same time
const VIDEO = /\.(mp4|m4v|mov|mkv|webm|avi|mpe?g|wmv|ogv|3gp|ts)$/i;
const LAST_SECONDS = 60; // of a running camera that its timeline shows
const MOST_ROWS = 100_000; // rows that a camera keeps: the newest

const find = (id) => document.getElementById(id);
const isStatic = document.querySelector('meta[name="mien-mode"]')?.content === "static"; // a page without a server
const server = new Server(askKey);
const device = new Device((share) => {
  const known = typeof share === "number" && share <= 1;
  find("where").textContent = `${t("Loading the networks")}${known ? `: ${percent(share)}` : ""} …`;
});
const cards = new Set();

const recognizer = () => (find("device").checked ? device : server);

function say(text) {
  find("status").textContent = text;
}

// ---- Work: some pictures at a time, videos one after the other -------------------------------------------------------

class Queue {
  constructor(atOnce) {
    this.free = atOnce;
    this.waiting = [];
  }

  async run(work) {
    if (this.free > 0) this.free--;
    else await new Promise((resolve) => this.waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = this.waiting.shift();
      if (next) next();
      else this.free++;
    }
  }
}

const pictures = new Queue(AT_ONCE);
const videos = new Queue(1);

/** Show a new card; return it with the signal that ends its work. */
function addCard(name, what, before) {
  const stop = new AbortController();
  const card = new Card(name, what, () => {
    stop.abort();
    cards.delete(card);
    card.element.remove();
    if (card.address) URL.revokeObjectURL(card.address);
    say(t("{name} was removed.", { name }));
    refresh();
    (cards.size ? find("results-title") : find("choose")).focus();
  });
  card.stop = stop;
  cards.add(card);
  find("cards").insertBefore(card.element, before);
  refresh();
  return card;
}

/** Do a card's work; show what went wrong next to it. */
async function work(card, queue, action) {
  try {
    await queue.run(async () => {
      card.stop.signal.throwIfAborted();
      await action();
    });
  } catch (error) {
    if (card.stop.signal.aborted && !(error instanceof Problem)) {
      card.setProgress(undefined, t("Cancelled"));
    } else {
      if (!(error instanceof Problem)) console.error(error);
      const text = error instanceof Problem ? error.message : t("Something went wrong on this page: {reason}", { reason: error.message });
      card.setProgress(undefined, t("Not recognised"));
      card.setProblem(text);
      card.body.hidden ||= card.isBlind();
      say(`${card.name}: ${text}`);
    }
  }
  card.setAction(null);
  refresh();
}

function addFiles(files) {
  const before = find("cards").firstChild; // what comes last is shown first
  for (const file of files) {
    if (file.type.startsWith("video/") || VIDEO.test(file.name)) addVideo(file, before);
    else addPicture(file, before);
  }
  if (files.length) say(plural(files.length, "{count} file added.", "{count} files added."));
}

function addPicture(file, before) {
  const card = addCard(file.name, "Face", before);
  const using = recognizer();
  card.setProgress(null, t("Waiting"));
  work(card, pictures, async () => {
    card.setProgress(null, t("Recognising"));
    card.address = URL.createObjectURL(file);
    card.setMedia(make("img", { src: card.address, alt: t("The picture {name}", { name: file.name }) }));
    const busy = (seconds) => card.setProgress(null, t("The server is busy. Next try in {seconds} s.", { seconds }));
    const answer = await using.picture(file, card.stop.signal, busy);
    if (answer.error) throw new Problem(answer.error);
    card.show(answer, using.unsureBelow);
    card.rows = answer.faces;
    const faces = plural(answer.faces.length, "{count} face", "{count} faces");
    card.setProgress(undefined, `${faces} · ${answer.width} × ${answer.height} px`);
    const words = answer.faces.slice(0, 5).map((face) => `${face.face}: ${inWords(face)}`);
    say(`${file.name}: ${faces}. ${words.join(". ")}`);
  });
}

function addVideo(file, before) {
  const card = addCard(file.name, "Person", before);
  const using = recognizer();
  const fps = Number(find("fps").value) || null;
  card.address = URL.createObjectURL(file);
  const video = make("video", { src: card.address, controls: true, muted: true, playsinline: true, "aria-label": t("The video {name}", { name: file.name }) });
  card.setMedia(video);
  card.setProgress(null, t("Waiting"));
  card.setAction(t("Cancel"), () => {
    card.stop.abort();
    card.setProgress(null, t("Stopping"));
  });
  work(card, videos, async () => {
    const report = (share, note) => card.setProgress(share, note);
    const { rows, frames, problem } = await using.video(file, fps, card.stop.signal, report);
    card.rows = rows.map((row) => ({ ...row, source: file.name }));
    card.setProblem(problem);
    if (!frames && problem) throw new Problem(problem);
    const length = Number.isFinite(video.duration) ? video.duration : 0;
    card.people.update(card.rows, 0, Math.max(length, rows.at(-1)?.time ?? 0));
    if (card.isBlind()) card.body.hidden = true;
    else card.follow(video, card.rows, using.unsureBelow);
    const people = plural(new Set(rows.map((row) => row.track)).size, "{count} person", "{count} people");
    const read = plural(frames, "{count} frame read", "{count} frames read");
    const done = `${card.stop.signal.aborted ? `${t("Cancelled")} · ` : ""}${people} · ${read}`;
    card.setProgress(undefined, done);
    say(`${file.name}: ${problem || done}`);
  });
}

// ---- Camera ----------------------------------------------------------------------------------------------------------

const CAMERA_ERRORS = {
  NotAllowedError: t("The browser does not let this page use the camera. Allow it in the browser's settings of this page."),
  NotFoundError: t("No camera was found. Connect one, then try again."),
  NotReadableError: t("The camera is used by another program. Close it, then try again."),
};

async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Problem(t("Browsers allow the camera only on secure pages: open this page over https, or on the server's own machine."));
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, facingMode: "user" } });
  } catch (error) {
    throw new Problem(CAMERA_ERRORS[error.name] ?? t("The camera cannot be used ({reason}).", { reason: error.message }), { cause: error });
  }
}

async function startCamera() {
  find("camera").disabled = true;
  const card = addCard(t("Camera"), "Person", find("cards").firstChild);
  const using = recognizer();
  const { signal } = card.stop;
  card.setProgress(null, t("Starting"));
  card.setAction(t("Stop"), () => card.stop.abort());
  let stream, connection;
  await work(card, { run: (action) => action() }, async () => {
    stream = await openCamera();
    const mirrored = stream.getVideoTracks()[0].getSettings().facingMode !== "environment"; // as people know it from a mirror
    const video = make("video", { autoplay: true, playsinline: true, class: mirrored && "mirrored", "aria-label": t("The camera") });
    video.muted = true;
    video.srcObject = stream;
    await video.play();
    card.setMedia(video);
    if (using === server) await server.info(); // asks for the API key, if one is needed
    connection = await using.camera();
    say(t("The camera is on."));
    try {
      await watch(card, connection, video, signal, using, mirrored);
    } finally {
      card.setMedia(canvasOf(video, video.videoWidth, video.videoHeight));
      card.media.classList.toggle("mirrored", mirrored);
      if (card.rows.length) card.people.update(card.rows, card.rows[0].time, card.rows.at(-1).time);
    }
  });
  for (const track of stream?.getTracks() ?? []) track.stop();
  connection?.close();
  find("camera").disabled = false;
  if (signal.aborted) say(t("The camera is off."));
}

/** Have one frame after the other recognised until the camera is stopped. */
async function watch(card, connection, video, signal, using, mirrored) {
  const times = [performance.now()];
  let drawn = 0;
  while (!signal.aborted) {
    await sleep(0); // so that the page stays alive, however fast the answers come
    const answer = await connection.frame(video);
    card.setProblem(answer.error);
    if (answer.error) continue;
    card.show(answer, using.unsureBelow, mirrored);
    card.rows.push(...answer.faces);
    if (card.rows.length > MOST_ROWS) card.rows.splice(0, card.rows.length - MOST_ROWS);
    const now = performance.now();
    times.push(now);
    while (times.length > 2 && times[0] < now - 2000) times.shift(); // a slow device has less than one in two seconds
    if (now - drawn > 500) {
      drawn = now;
      const speed = (((times.length - 1) * 1000) / (now - times[0])).toFixed(1);
      const faces = plural(answer.faces.length, "{count} face", "{count} faces");
      card.setProgress(undefined, `${faces} · ${t("{speed} frames per second", { speed })}`);
      const start = Math.max(0, answer.time - LAST_SECONDS);
      card.people.update(card.rows.filter((row) => row.time >= start), start, answer.time);
      refresh();
    }
  }
  const people = plural(new Set(card.rows.map((row) => row.track)).size, "{count} person", "{count} people");
  card.setProgress(undefined, `${t("Stopped")} · ${people}`);
}

// ---- The page --------------------------------------------------------------------------------------------------------

/** Show how many results there are, and whether there is a table. */
function refresh() {
  const rows = [...cards].reduce((sum, card) => sum + card.rows.length, 0);
  find("results").hidden = !cards.size;
  document.body.classList.toggle("has-results", cards.size > 0);
  find("count").textContent = plural(rows, "{count} row in the table", "{count} rows in the table");
  find("csv").disabled = find("json").disabled = !rows;
}

const table = () => [...cards].flatMap((card) => card.rows);

/** Ask the user for the API key. */
function askKey(wrong) {
  const form = find("key-form");
  form.hidden = false;
  if (wrong) find("key-why").textContent = t("The server does not know this key. Check it, then enter it again.");
  find("key-why").classList.toggle("problem", wrong);
  say(find("key-why").textContent);
  find("key").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      find("choose").focus();
      resolve(find("key").value.trim());
    };
  });
}

function isLocal() {
  return ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
}

/** Say where pictures go, and what recognises them. */
async function describe() {
  const local = find("device").checked;
  const at = isLocal()
    ? t("Pictures go to the mien server on this computer, which keeps none of them.")
    : t("Pictures go to the mien server at {host}, which keeps none of them.", { host: location.host });
  find("where").textContent = local ? t("Pictures do not leave this device.") : at;
  try {
    const info = await recognizer().info();
    if (local !== find("device").checked) return;
    if (local) find("where").textContent = `${t("Pictures do not leave this device.")} ${t("Recognised by {name}.", { name: info.provider })}`;
    else find("about").textContent = `mien ${info.mien_version} · ${t("model {name}", { name: info.name })}`;
  } catch (error) {
    find("where").textContent = error.message;
    say(error.message);
    if (local && !isStatic) find("device").checked = false;
  }
}

function listen() {
  find("choose").addEventListener("click", () => find("files").click());
  find("files").addEventListener("change", () => {
    addFiles([...find("files").files]);
    find("files").value = "";
  });
  find("camera").addEventListener("click", startCamera);
  find("device").addEventListener("change", describe);
  document.addEventListener("paste", (event) => {
    if (event.clipboardData.files.length) addFiles([...event.clipboardData.files]);
  });
  const drop = find("intake");
  for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      drop.classList.toggle("over", name === "dragenter" || name === "dragover");
      if (name === "drop") addFiles([...event.dataTransfer.files]);
    });
  }
  find("csv").addEventListener("click", () => download("mien.csv", "text/csv", csv(table())));
  find("json").addEventListener("click", () => download("mien.json", "application/json", JSON.stringify(table())));
  find("clear").addEventListener("click", () => {
    for (const card of cards) card.element.querySelector(".remove").click();
    say(t("All results were removed."));
  });
  find("limits-open").addEventListener("click", () => find("limits").showModal());
  find("limits").addEventListener("click", (event) => event.target === find("limits") && find("limits").close()); // beside it
}

async function start() {
  translatePage(find("language"), () => !cards.size || confirm(t("Another language removes the results from this page. Change it?")));
  listen();
  if (isStatic) {
    find("device").checked = true;
    find("links").hidden = true;
  } else {
    const has = await fetch("device/device.json", { method: "HEAD" }).catch(() => null);
    find("device-option").hidden = has?.status !== 200;
  }
  await describe();
}

start();
