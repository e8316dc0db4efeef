// The page: takes pictures, videos and the camera, has them recognised by the server or on this device, and shows the results.

import { Card } from "./card.js";
import { answer as inWords, make, percent, plural } from "./draw.js";
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
  find("where").textContent = `Loading the networks${known ? `: ${percent(share)}` : ""} …`;
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
    say(`${name} was removed.`);
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
      card.setProgress(undefined, "Cancelled");
    } else {
      if (!(error instanceof Problem)) console.error(error);
      const text = error instanceof Problem ? error.message : `Something went wrong on this page: ${error.message}`;
      card.setProgress(undefined, "Not recognised");
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
  if (files.length) say(`${plural(files.length, "file")} added.`);
}

function addPicture(file, before) {
  const card = addCard(file.name, "Face", before);
  const using = recognizer();
  card.setProgress(null, "Waiting");
  work(card, pictures, async () => {
    card.setProgress(null, "Recognising");
    card.address = URL.createObjectURL(file);
    card.setMedia(make("img", { src: card.address, alt: `The picture ${file.name}` }));
    const busy = (seconds) => card.setProgress(null, `The server is busy. Next try in ${seconds} s.`);
    const answer = await using.picture(file, card.stop.signal, busy);
    if (answer.error) throw new Problem(answer.error);
    card.show(answer, using.unsureBelow);
    card.rows = answer.faces;
    const faces = plural(answer.faces.length, "face");
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
  const video = make("video", { src: card.address, controls: true, muted: true, playsinline: true, "aria-label": `The video ${file.name}` });
  card.setMedia(video);
  card.setProgress(null, "Waiting");
  card.setAction("Cancel", () => {
    card.stop.abort();
    card.setProgress(null, "Stopping");
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
    const people = plural(new Set(rows.map((row) => row.track)).size, "person", "people");
    const cancelled = card.stop.signal.aborted ? "Cancelled · " : "";
    card.setProgress(undefined, `${cancelled}${people} · ${plural(frames, "frame")} read`);
    say(problem ? `${file.name}: ${problem}` : `${file.name}: ${cancelled}${people} in ${plural(frames, "frame")}.`);
  });
}

// ---- Camera ----------------------------------------------------------------------------------------------------------

const CAMERA_ERRORS = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it in the browser's settings of this page.",
  NotFoundError: "No camera was found. Connect one, then try again.",
  NotReadableError: "The camera is used by another program. Close it, then try again.",
};

async function openCamera() {
  if (!navigator.mediaDevices) {
    throw new Problem("Browsers allow the camera only on secure pages: open this page over https, or on the server's own machine.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, facingMode: "user" } });
  } catch (error) {
    throw new Problem(CAMERA_ERRORS[error.name] ?? `The camera cannot be used (${error.message}).`, { cause: error });
  }
}

async function startCamera() {
  find("camera").disabled = true;
  const card = addCard("Camera", "Person", find("cards").firstChild);
  const using = recognizer();
  const { signal } = card.stop;
  card.setProgress(null, "Starting");
  card.setAction("Stop", () => card.stop.abort());
  let stream, connection;
  await work(card, { run: (action) => action() }, async () => {
    stream = await openCamera();
    const mirrored = stream.getVideoTracks()[0].getSettings().facingMode !== "environment"; // as people know it from a mirror
    const video = make("video", { autoplay: true, playsinline: true, class: mirrored && "mirrored", "aria-label": "The camera" });
    video.muted = true;
    video.srcObject = stream;
    await video.play();
    card.setMedia(video);
    if (using === server) await server.info(); // asks for the API key, if one is needed
    connection = await using.camera();
    say("The camera is on.");
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
  if (signal.aborted) say("The camera is off.");
}

/** Have one frame after the other recognised until the camera is stopped. */
async function watch(card, connection, video, signal, using, mirrored) {
  const times = [];
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
    while (times[0] < now - 2000) times.shift();
    if (now - drawn > 500) {
      drawn = now;
      const speed = times.length > 1 ? ((times.length - 1) * 1000) / (now - times[0]) : 0;
      card.setProgress(undefined, `${plural(answer.faces.length, "face")} · ${speed.toFixed(1)} frames per second`);
      const start = Math.max(0, answer.time - LAST_SECONDS);
      card.people.update(card.rows.filter((row) => row.time >= start), start, answer.time);
      refresh();
    }
  }
  card.setProgress(undefined, `Stopped · ${plural(new Set(card.rows.map((row) => row.track)).size, "person", "people")}`);
}

// ---- The page --------------------------------------------------------------------------------------------------------

/** Show how many results there are, and whether there is a table. */
function refresh() {
  const rows = [...cards].reduce((sum, card) => sum + card.rows.length, 0);
  find("results").hidden = !cards.size;
  document.body.classList.toggle("has-results", cards.size > 0);
  find("count").textContent = `${plural(rows, "row")} in the table`;
  find("csv").disabled = find("json").disabled = !rows;
}

const table = () => [...cards].flatMap((card) => card.rows);

/** Ask the user for the API key. */
function askKey(wrong) {
  const form = find("key-form");
  form.hidden = false;
  if (wrong) find("key-why").textContent = "The server does not know this key. Check it, then enter it again.";
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
  find("where").textContent = local
    ? "Pictures do not leave this device."
    : `Pictures go to the mien server ${isLocal() ? "on this computer" : `at ${location.host}`}, which keeps none of them.`;
  try {
    const info = await recognizer().info();
    if (local !== find("device").checked) return;
    if (local) find("where").textContent = `Pictures do not leave this device. Recognised by ${info.provider}.`;
    else find("about").textContent = `mien ${info.mien_version} · model ${info.name}`;
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
    for (const card of cards) card.element.querySelector('[aria-label^="Remove"]').click();
    say("All results were removed.");
  });
  find("limits-open").addEventListener("click", () => find("limits").showModal());
  find("limits").addEventListener("click", (event) => event.target === find("limits") && find("limits").close()); // beside it
}

async function start() {
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
