// Recognition by the server: pictures, videos as jobs, and cameras over a WebSocket. Addresses are relative to the page.

import { t } from "./language.js";

/** An error whose message is meant for the user. */
export class Problem extends Error {}

const LOST = t("The server does not answer. Check that it is running, then try again.");
const POLL_MS = 500;

/** Wait; ends early with the signal's error. */
export function sleep(seconds, signal) {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Return a canvas with a picture or the current frame of a video. */
export function canvasOf(source, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  canvas.getContext("2d", { willReadFrequently: true }).drawImage(source, 0, 0, width, height);
  return canvas;
}

export class Server {
  /** `askKey(wrong)` returns a promise of the API key that the user enters. */
  constructor(askKey) {
    this.askKey = askKey;
    this.key = "";
    this.unsureBelow = 0.5;
    this.waitsForKey = null;
  }

  async info() {
    const model = await (await this.ask("v1/model")).json();
    this.unsureBelow = model.unsure_below;
    return model;
  }

  /** Ask for the key once, however many requests need it. */
  async newKey() {
    this.waitsForKey ??= this.askKey(this.key !== "").then((key) => {
      this.key = key;
      this.waitsForKey = null;
    });
    await this.waitsForKey;
  }

  /** Send a request; enter a key or wait where the server asks for it. `send` replaces fetch. */
  async ask(path, options = {}, onBusy = () => {}, send = fetch) {
    for (;;) {
      const key = this.key;
      const headers = key ? { "X-API-Key": key } : {};
      let response;
      try {
        response = await send(path, { ...options, headers });
      } catch (error) {
        options.signal?.throwIfAborted();
        throw new Problem(LOST, { cause: error });
      }
      if (response.status === 401) {
        if (key === this.key) await this.newKey();
      } else if (response.status === 429) {
        const seconds = Number(response.headers.get("Retry-After")) || 1;
        onBusy(seconds);
        await sleep(seconds, options.signal);
      } else if (response.ok) {
        return response;
      } else {
        const problem = await response.json().catch(() => ({}));
        throw new Problem(problem.detail ?? t("The server answered with the error {status}.", { status: response.status }));
      }
    }
  }

  /** Return the answer for a picture: an entry of `pictures`. */
  async picture(file, signal, onBusy) {
    const body = new FormData();
    body.append("files", file, file.name);
    const response = await this.ask("v1/pictures", { method: "POST", body, signal }, onBusy);
    return (await response.json()).pictures[0];
  }

  /** Return the rows of a video, and a problem if it was not read to its end. Aborting keeps the rows so far. */
  async video(file, fps, signal, report) {
    const path = `v1/videos${fps ? `?fps=${fps}` : ""}`;
    const busy = (seconds) => report(null, t("The server is busy. Next try in {seconds} s.", { seconds }));
    const upload = (address, options) => uploadFile(address, options.headers, file, signal, report);
    let job = await (await this.ask(path, { signal }, busy, upload)).json();
    const address = `v1/videos/${job.id}`;
    const forget = () => fetch(address, { method: "DELETE", keepalive: true, headers: this.key ? { "X-API-Key": this.key } : {} });
    const cancel = () => this.ask(address, { method: "DELETE" }).catch(() => {});
    addEventListener("pagehide", forget);
    signal.addEventListener("abort", cancel);
    if (signal.aborted) cancel();
    try {
      const started = performance.now();
      while (job.state === "queued" || job.state === "running") {
        const speed = (job.frames / ((performance.now() - started) / 1000)).toFixed(1);
        const read = t("{count} frames read, {speed} per second", { count: job.frames, speed });
        report(job.progress, job.state === "queued" ? t("Waiting for the videos before it") : job.frames ? read : t("Reading"));
        await sleep(POLL_MS / 1000);
        job = await (await this.ask(address)).json();
      }
      const rows = job.rows ? await (await this.ask(`${address}/table`)).json() : [];
      return { rows, frames: job.frames, problem: job.error };
    } finally {
      removeEventListener("pagehide", forget);
      signal.removeEventListener("abort", cancel);
      cancel(); // the page has the table: the server can forget it
    }
  }

  /** Return a camera: `frame(video)` returns its answer; it fails with a Problem when the connection ends. */
  async camera() {
    const address = new URL("v1/camera", document.baseURI);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    let waiting = null;
    const ended = new Promise((_, reject) => {
      socket.onclose = (event) => reject(new Problem(event.reason ? t("The server closed the camera: {reason}.", { reason: event.reason }) : LOST));
    });
    ended.catch(() => {}); // it is looked at with the next frame
    socket.onmessage = (event) => waiting?.(JSON.parse(event.data));
    await Promise.race([ended, new Promise((resolve) => (socket.onopen = resolve))]);
    if (this.key) socket.send(JSON.stringify({ key: this.key }));
    return {
      async frame(video) {
        const canvas = canvasOf(video, video.videoWidth, video.videoHeight);
        const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.9));
        const answer = new Promise((resolve) => (waiting = resolve));
        if (socket.readyState === WebSocket.OPEN) socket.send(blob);
        return Promise.race([answer, ended]);
      },
      close: () => socket.close(),
    };
  }
}

/** Send a file, and report how much of it has arrived; fetch cannot tell. */
function uploadFile(address, headers, file, signal, report) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", address);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => report(event.loaded / event.total, t("Sending the video"));
    request.onload = () => {
      const answered = { "Retry-After": request.getResponseHeader("Retry-After") ?? "" };
      resolve(new Response(request.response, { status: request.status, headers: answered }));
    };
    request.onerror = () => reject(new TypeError("no answer"));
    request.onabort = () => reject(signal.reason);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.send(file);
  });
}
