// Recognition on this device: device/device.js recognises one picture at a time; videos are read frame by frame.

import { t } from "./language.js";
import { Problem, canvasOf } from "./server.js";

const SEEK_MS = 10_000; // a browser that needs longer for one frame cannot read the video

export class Device {
  /** `onProgress` is called with what device.js reports while it loads. */
  constructor(onProgress) {
    this.onProgress = onProgress;
    this.unsureBelow = 0.5;
  }

  /** Load the networks, once. */
  async info() {
    this.loading ??= import("./device/device.js").then(({ load }) => load(new URL("device/", document.baseURI).href, this.onProgress));
    try {
      this.loaded = await this.loading;
    } catch (error) {
      this.loading = null;
      throw new Problem(t("The networks cannot be loaded on this device ({reason}).", { reason: error.message }), { cause: error });
    }
    this.unsureBelow = this.loaded.unsureBelow;
    return this.loaded;
  }

  /** Return the answer for a picture, or with `video` for the next frame of a video or camera. */
  async recognise(source, width, height, name, video = false) {
    await this.info();
    const image = canvasOf(source, width, height).getContext("2d").getImageData(0, 0, width, height);
    return this.loaded.recognise(image, name, { video });
  }

  async picture(file) {
    const image = await createImageBitmap(file).catch(() => {
      throw new Problem(`${file.name}: ${t("this browser cannot read it as a picture. Send a JPEG or PNG file.")}`);
    });
    try {
      return await this.recognise(image, image.width, image.height, file.name);
    } finally {
      image.close();
    }
  }

  async video(file, fps, signal, report) {
    const video = document.createElement("video");
    video.muted = true;
    video.src = URL.createObjectURL(file);
    const unreadable = `${file.name}: ${t("this browser cannot read it as a video. Send an MP4 or WebM file.")}`;
    const next = (name) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Problem(unreadable)), SEEK_MS);
        const end = (action) => (clearTimeout(timer), action());
        video.addEventListener(name, () => end(resolve), { once: true });
        video.addEventListener("error", () => end(() => reject(new Problem(unreadable))), { once: true });
      });
    try {
      await next("loadeddata");
      await this.info();
      const step = 1 / (fps || 25); // a browser does not tell the video's own rate
      const tracker = new Tracker();
      const rows = [];
      const started = performance.now();
      let frame = 0;
      for (; frame * step < video.duration && !signal.aborted; frame++) {
        if (frame) {
          const sought = next("seeked");
          video.currentTime = frame * step;
          await sought;
        }
        const found = await this.recognise(video, video.videoWidth, video.videoHeight, file.name, true);
        rows.push(...tracker.follow(found.faces, frame, frame * step));
        const speed = ((frame + 1) / ((performance.now() - started) / 1000)).toFixed(1);
        report((frame * step) / video.duration, t("{count} frames read, {speed} per second", { count: frame + 1, speed }));
      }
      return { rows, frames: frame, problem: null };
    } finally {
      URL.revokeObjectURL(video.src);
      video.removeAttribute("src");
    }
  }

  async camera() {
    await this.info();
    const tracker = new Tracker();
    const start = performance.now();
    let frame = 0;
    return {
      frame: async (video) => {
        const time = (performance.now() - start) / 1000;
        const found = await this.recognise(video, video.videoWidth, video.videoHeight, "camera", true);
        return { ...found, frame, time, faces: tracker.follow(found.faces, frame++, time) };
      },
      close() {},
    };
  }
}

/** Follows faces from frame to frame: a face is the person whose last box it overlaps most. */
class Tracker {
  constructor() {
    this.people = []; // {track, face, time}
    this.count = 0;
  }

  /** Return the rows of a frame with `frame`, `time` and `track`. */
  follow(faces, frame, time) {
    const free = this.people.filter((person) => time - person.time < 1.5);
    const pairs = faces.flatMap((face) => free.map((person) => ({ face, person, overlap: overlap(face, person.face) })));
    const tracks = new Map();
    for (const { face, person } of pairs.filter((pair) => pair.overlap > 0.2).sort((a, b) => b.overlap - a.overlap)) {
      if (!tracks.has(face) && !person.taken) (tracks.set(face, person.track), (person.taken = true));
    }
    for (const face of faces) if (!tracks.has(face)) tracks.set(face, ++this.count);
    const seen = faces.map((face) => ({ track: tracks.get(face), face, time }));
    this.people = [...seen, ...free.filter((person) => !person.taken)];
    return faces.map((face) => ({ ...face, frame, time: Math.round(time * 1e6) / 1e6, track: tracks.get(face) }));
  }
}

/** Return the area that two boxes share, as a part of the area that they cover together. */
function overlap(a, b) {
  const area = (box) => (box.right - box.left) * (box.bottom - box.top);
  const width = Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left));
  const height = Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  return (width * height) / (area(a) + area(b) - width * height);
}
