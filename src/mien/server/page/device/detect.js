/**
 * Finds the faces of a picture as `mien.faces.centerface` does, with the same networks, numbers and names; docs/faces.md
 * explains them. CenterFace proposes faces, O-Net of MTCNN gives their exact boxes, and a picture in which nothing is found is
 * searched again.
 *
 * @typedef {import("./pixels.js").Picture} Picture
 * @typedef {import("./faces.js").Face} Face
 * @typedef {{data: Float32Array, shape: number[]}} Input
 * @typedef {{data: Float32Array, dims: number[]}} Output
 * @typedef {(inputs: Record<string, Input>) => Promise<Record<string, Output>>} Network  by the names in the ONNX file
 */

import { createFace, longerSide, place, quarterTurns, roll, square, suppress, turn } from "./faces.js";
import { cut, resize, rotate, round } from "./pixels.js";

const STEP = 32; // CenterFace: the sides of its input must be multiples of this, px
const CELL = 4; // side of a cell of its maps, px
const SMALLEST = 8; // side of the smallest face it finds, px
const WORKING_FACE = 16, FINE_FACE = 40; // what `minFace` is shrunk to, and in a finer search, px
const LEEWAY = 0.85; // side of the smallest box that is kept, in `minFace`
const OVERLAP = 0.3; // largest overlap of two boxes that are both kept
const DOUBTFUL = 0.07; // lowest score of a face that is looked at again
const UNSEEN = 0.6; // lowest score of a doubtful face that O-Net does not see, next to a better one
const TURNED = 40; // degrees from which a face is looked at again
const LOOK = 96, AROUND = 2.4; // side of the input when it looks again, px, and of the square around the face, in longer sides
const TIE = 0.1; // how much better another direction than the expected one must be
const DETECT_EVERY = 5; // frames of a video
const MAX_FACE = 4; // longer side of the largest face, in longer sides of the picture

const WINDOW = 12, STRIDE = 2; // MTCNN: P-Net's window and the step between two, px
const FACTOR = 0.709; // ratio of one scale of the picture to the one before
const PNET_THRESHOLD = 0.6, RNET_THRESHOLD = 0.7, MTCNN_THRESHOLD = 0.9;
const MTCNN_FACE = 20; // side of the smallest face MTCNN looks for in a picture that was shrunk, px
const FOLLOW = 0.7; // lowest score of a face that is known to be there
const MOVED = 0.1; // O-Net looks again if the box moved by more than this share of its side
const LARGEST = 192; // side of the largest face that O-Net sees at full resolution, px

export class Detector {
  /**
   * @param {{centerface: Network, pnet: Network, rnet: Network, onet: Network}} networks
   * @param {{minFace: number, threshold: number, maxSize: number}} options  side of the smallest face, px; lowest score; longer
   *   side that a picture is shrunk to, px
   */
  constructor(networks, { minFace, threshold, maxSize }) {
    Object.assign(this, { networks, minFace, threshold, maxSize });
  }

  /** Returns the faces of a picture, highest score first. @param {Picture} image @returns {Promise<Face[]>} */
  async detect(image) {
    let faces = await this.search(image, false);
    if (!faces.length) faces = await this.searchMtcnn(image);
    if (!faces.length) faces = await this.search(image, true);
    for (const quarters of [1, 3, 2]) {
      if (faces.length) break;
      const turned = rotate(image, quarters);
      faces = (await this.search(turned, false)).map((face) => turn(face, turned.width, turned.height, -quarters));
    }
    return faces;
  }

  /**
   * Returns the faces of a video's next frame. O-Net follows them from the frame before, which is much faster. Every few
   * frames, and as soon as one is lost, the whole frame is searched.
   *
   * @param {Picture} image
   * @param {string} video  tells one video from another
   * @returns {Promise<Face[]>}
   */
  async detectFrame(image, video) {
    const { last } = this;
    let faces = [];
    if (last?.video === video && last.age < DETECT_EVERY) {
      for (const face of last.faces) faces.push(await this.look(image, face, FOLLOW));
      faces = faces.includes(null) ? [] : suppress(faces, OVERLAP);
    }
    const age = faces.length ? last.age + 1 : 1;
    if (!faces.length) faces = await this.search(image, false);
    this.last = { video, age, faces };
    return faces;
  }

  /** The faces that CenterFace finds. @param {Picture} image @param {boolean} fine @returns {Promise<Face[]>} */
  async search(image, fine) {
    if (Math.min(image.width, image.height) < SMALLEST) return [];
    const longer = Math.max(image.width, image.height);
    const picture = shrink(image, Math.min(1, this.maxSize / longer, (fine ? FINE_FACE : WORKING_FACE) / this.minFace));
    if (Math.min(picture.width, picture.height) < SMALLEST) return [];
    const back = [image.width / picture.width, image.height / picture.height];
    const [proposed] = await this.runCenterFace([picture], Math.min(DOUBTFUL, this.threshold), back);
    const found = [];
    for (const face of proposed) {
      const exact = await this.makeExact(image, face);
      if (exact && longerSide(exact.box) >= LEEWAY * this.minFace) found.push(exact);
    }
    // A doubtful face next to a better one is only kept if O-Net sees it or its score is high.
    return suppress(found, OVERLAP).filter((face, i) => i === 0 || face.likely || face.score >= UNSEEN);
  }

  /** A proposed face framed by O-Net if it sees one, else by CenterFace; null if it is not a face. @param {Face} face */
  async makeExact(image, face) {
    const certain = face.score > this.threshold;
    let exact = certain && Math.abs(roll(face.landmarks)) <= TURNED ? await this.look(image, face, FOLLOW) : null;
    if (!exact) {
      const again = await this.lookAround(image, face);
      if (!again && !certain) return null;
      face = again ?? face;
      exact = await this.look(image, face, FOLLOW);
    }
    return { ...face, ...(exact && { box: exact.box, landmarks: exact.landmarks }), likely: certain || exact !== null };
  }

  /** A face as CenterFace sees it larger, in the best of four directions; null if it then sees none. @param {Face} face */
  async lookAround(image, face) {
    const x = (face.box[0] + face.box[2]) / 2, y = (face.box[1] + face.box[3]) / 2, side = AROUND * longerSide(face.box);
    if (!(side >= 1 && side <= AROUND * MAX_FACE * Math.max(image.width, image.height))) return null;
    const [left, top, right, bottom] = [x - side / 2, y - side / 2, x + side / 2, y + side / 2].map(round);
    const part = resize(cut(image, left, top, right, bottom, "black"), LOOK, LOOK, { reducingGap: 2 });
    const views = await this.runCenterFace([0, 1, 2, 3].map((quarters) => rotate(part, quarters)), this.threshold, [1, 1]);
    const expected = quarterTurns(face.landmarks);
    let best = null, highest = 0;
    views.forEach((faces, quarters) => {
      for (const each of faces) {
        const { box } = each, size = (AROUND * longerSide(box)) / LOOK;
        const off = Math.max(Math.abs(box[0] + box[2] - LOOK), Math.abs(box[1] + box[3] - LOOK)) / 2;
        const score = each.score + (quarters === expected ? TIE : 0);
        if (off < LOOK / AROUND / 2 && size > 0.5 && size < 2 && score > highest) {
          best = turn(each, LOOK, LOOK, -quarters);
          highest = score;
        }
      }
    });
    const scale = (right - left) / LOOK;
    return best && place(best, [scale, scale], [left, top]);
  }

  /**
   * The faces CenterFace sees in pictures of one size, highest score first.
   *
   * @param {Picture[]} pictures
   * @param {number} threshold  lowest score
   * @param {number[]} back  how much larger the original is in x and y
   * @returns {Promise<Face[][]>}
   */
  async runCenterFace(pictures, threshold, back) {
    const { width, height } = pictures[0];
    const wide = Math.ceil(width / STEP) * STEP, high = Math.ceil(height / STEP) * STEP;
    const data = new Float32Array(pictures.length * 3 * high * wide).fill(128); // grey to the right and below
    pictures.forEach((picture, n) => {
      for (let y = 0, from = 0; y < height; y++) {
        for (let x = 0; x < width; x++) {
          for (let c = 0; c < 3; c++) data[((n * 3 + c) * high + y) * wide + x] = picture.data[from++];
        }
      }
    });
    const outputs = await this.networks.centerface({ "input.1": { data, shape: [pictures.length, 3, high, wide] } });
    const [heat, size, offset, points] = ["537", "538", "539", "540"].map((name) => outputs[name].data);
    const columns = wide / CELL, cells = (high / CELL) * columns;
    return pictures.map((_, n) => {
      const faces = [];
      for (let cell = 0; cell < cells; cell++) {
        const score = heat[n * cells + cell];
        if (!(score > threshold)) continue;
        const at = (map, channels, channel) => map[(n * channels + channel) * cells + cell];
        const tall = Math.exp(at(size, 2, 0)) * CELL, broad = Math.exp(at(size, 2, 1)) * CELL;
        const top = (Math.floor(cell / columns) + at(offset, 2, 0) + 0.5) * CELL - tall / 2;
        const left = ((cell % columns) + at(offset, 2, 1) + 0.5) * CELL - broad / 2;
        const landmarks = [0, 2, 4, 6, 8].map((i) => [left + at(points, 10, i + 1) * broad, top + at(points, 10, i) * tall]);
        faces.push(createFace([left, top, left + broad, top + tall], score, landmarks));
      }
      return suppress(faces, OVERLAP).map((face) => {
        const placed = place(face, back, [0, 0]);
        return { ...placed, box: frameAsMtcnn(placed.box) };
      });
    });
  }

  /**
   * A face as O-Net sees it; null if its score is not above the threshold.
   *
   * @param {Picture} image
   * @param {Face} face  where it is, within 0.4 of its size
   * @returns {Promise<Face | null>}
   */
  async look(image, face, threshold) {
    const { part, start, scale } = surroundings(image, square(face.box));
    if (!part.data.length) return null;
    const quarters = quarterTurns(face.landmarks);
    const back = [-start[0] * scale[0], -start[1] * scale[1]];
    const known = turn(place(face, scale, back), part.width, part.height, quarters);
    const turned = rotate(part, quarters), pixels = normalize(turned);
    let box = square(known.box), found = null;
    for (let i = 0; i < 2; i++) {
      [found] = await refine(this.networks.onet, pixels, [box], -1);
      if (!found) return null;
      const before = box;
      box = square(found.box);
      if (Math.max(...box.map((edge, k) => Math.abs(edge - before[k]))) <= MOVED * (before[2] - before[0])) break;
    }
    if (!(found.score > threshold)) return null;
    return place(turn(found, turned.width, turned.height, -quarters), [1 / scale[0], 1 / scale[1]], start);
  }

  /** The faces that MTCNN finds: it knows blurred close-ups better. @param {Picture} image @returns {Promise<Face[]>} */
  async searchMtcnn(image) {
    if (Math.min(image.width, image.height) < WINDOW) return [];
    const minFace = Math.max(this.minFace, WINDOW), threshold = Math.max(this.threshold, MTCNN_THRESHOLD);
    const scale = Math.min(1, this.maxSize / Math.max(image.width, image.height)), picture = shrink(image, scale);
    const proposed = await this.propose(picture, Math.max(minFace * scale, Math.min(minFace, MTCNN_FACE)));
    const pixels = normalize(picture);
    const refined = suppress(await refine(this.networks.rnet, pixels, proposed, RNET_THRESHOLD), 0.7);
    const faces = await refine(this.networks.onet, pixels, refined.map(({ box }) => square(box)), threshold);
    const back = [image.width / picture.width, image.height / picture.height];
    return suppress(faces, 0.7, true).map((face) => place(face, back, [0, 0]));
  }

  /** P-Net's square boxes over all scales of a picture. */
  async propose(picture, smallest) {
    const found = [];
    let level = picture;
    for (let scale = WINDOW / smallest; Math.min(picture.width, picture.height) * scale >= WINDOW; scale *= FACTOR) {
      level = resize(level, round(picture.width * scale), round(picture.height * scale));
      const { box, logits } = await this.networks.pnet({ picture: normalize(level) });
      const [, , rows, columns] = logits.dims, cells = rows * columns, windows = [];
      const back = [picture.width / level.width, picture.height / level.height];
      for (let cell = 0; cell < cells; cell++) {
        const score = sigmoid(logits.data[cells + cell] - logits.data[cell]);
        if (!(score > PNET_THRESHOLD)) continue;
        const left = (cell % columns) * STRIDE, top = Math.floor(cell / columns) * STRIDE;
        const edges = [left, top, left + WINDOW, top + WINDOW].map((edge, i) => edge + WINDOW * box.data[i * cells + cell]);
        windows.push(place(createFace(edges, score, null), back, [0, 0]));
      }
      found.push(...suppress(windows, 0.5));
    }
    return suppress(found, 0.7).map(({ box }) => square(box));
  }
}

/** A picture shrunk by a factor, at least 1 px a side. @param {Picture} picture */
function shrink(picture, scale) {
  if (scale >= 1) return picture;
  const width = Math.max(1, round(picture.width * scale)), height = Math.max(1, round(picture.height * scale));
  return resize(picture, width, height, { reducingGap: 2 });
}

/** CenterFace's box as MTCNN would draw it, in which the expression networks were trained. @param {number[]} box */
function frameAsMtcnn([left, top, right, bottom]) {
  const x = (left + right) / 2, height = bottom - top, y = (top + bottom) / 2 - 0.015 * height;
  const half = [(right - left) / 2, (1.04 * height) / 2];
  return [x - half[0], y - half[1], x + half[0], y + half[1]].map(Math.fround);
}

/** The part of a picture around a square, twice its size, shrunk if it is large; where it starts, px, and its scale. */
function surroundings(image, box) {
  const side = Math.fround(box[2] - box[0]), beyond = Math.fround(side / 2);
  const [left, top, right, bottom] = box.map((edge, i) => {
    const outer = i < 2 ? Math.floor(Math.fround(edge - beyond)) : Math.ceil(Math.fround(edge + beyond));
    return Math.min(Math.max(outer, 0), i % 2 ? image.height : image.width);
  });
  let part = cut(image, left, top, right, bottom);
  const { width, height } = part;
  if (side > LARGEST && part.data.length) {
    const sizes = [width, height].map((length) => Math.max(1, round((length * LARGEST) / side)));
    part = resize(part, sizes[0], sizes[1], { reducingGap: 2 });
  }
  return { part, start: [left, top], scale: [part.width / Math.max(width, 1), part.height / Math.max(height, 1)] };
}

/** A picture as MTCNN's networks expect it. @param {Picture} picture */
function normalize({ data, width, height }) {
  const values = new Float32Array(data.length), plane = width * height;
  for (let i = 0; i < plane; i++) {
    for (let c = 0; c < 3; c++) values[c * plane + i] = (data[3 * i + c] - 127.5) / 128;
  }
  return { data: values, shape: [1, 3, height, width] };
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** The boxes that pass R-Net or O-Net, corrected. @param {Network} network @param {number[][]} boxes  squares, px */
async function refine(network, picture, boxes, threshold) {
  if (!boxes.length) return [];
  const outputs = await network({ picture, boxes: { data: Float32Array.from(boxes.flat()), shape: [boxes.length, 4] } });
  const faces = boxes.map((box, n) => {
    const width = box[2] - box[0], height = box[3] - box[1];
    const corrected = box.map((edge, i) => edge + outputs.box.data[4 * n + i] * (i % 2 ? height : width));
    const points = outputs.landmarks?.data.subarray(10 * n, 10 * n + 10); // all x, then all y
    const landmarks = points ? [0, 1, 2, 3, 4].map((i) => [box[0] + points[i] * width, box[1] + points[5 + i] * height]) : null;
    return createFace(corrected, sigmoid(outputs.logits.data[2 * n + 1] - outputs.logits.data[2 * n]), landmarks);
  });
  return faces.filter(({ box, score }) => score > threshold && box[2] - box[0] >= 1 && box[3] - box[1] >= 1);
}
