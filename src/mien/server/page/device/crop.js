/**
 * What the network sees of a face, and how well the face can be seen: `mien.faces.crop`, `mien.preprocess` and
 * `mien.faces.quality`.
 *
 * @typedef {import("./pixels.js").Picture} Picture
 * @typedef {import("./faces.js").Face} Face
 */

import { area, longerSide } from "./faces.js";
import { cut, resize, round, toGrey, warp } from "./pixels.js";

const BORDER = 3; // px read around the square, which the interpolation needs
const MAX_SIDE = 8; // side of the largest square that is cut out, in longer sides of the picture

/** Where the landmarks of a face go in its crop: points as shares of the crop's side. @typedef {number[][]} Template */

/**
 * Returns the crop of a face: turned upright by its landmarks if they are plausible, else the square around its box.
 *
 * @param {Picture} image
 * @param {Face} face
 * @param {{size: number[], crop_scale: number, crop_shift: number}} spec  the network's preprocessing
 * @param {Template} template  with the margin that the network expects
 * @param {Template} frame  that tells whether landmarks are plausible
 * @returns {Picture}
 */
export function cropFace(image, face, spec, template, frame) {
  if (isPlausible(face, frame)) return alignFace(image, face, Math.max(...spec.size), template);
  const [left, top, right, bottom] = face.box, longer = longerSide(face.box);
  const side = Math.max(1, round(spec.crop_scale * longer));
  const row = round((top + bottom) / 2 + spec.crop_shift * longer - side / 2), column = round((left + right) / 2 - side / 2);
  return cut(image, column, row, column + side, row + side);
}

/** The rotation and scale (a, b) and the shift (x, y) that bring points closest to others, in least squares. */
function similarity(points, targets) {
  const mean = (list, i) => list.reduce((sum, point) => sum + point[i], 0) / list.length;
  const [px, py, qx, qy] = [mean(points, 0), mean(points, 1), mean(targets, 0), mean(targets, 1)];
  let a = 0, b = 0, spread = 0;
  points.forEach(([x, y], i) => {
    const [dx, dy, tx, ty] = [x - px, y - py, targets[i][0] - qx, targets[i][1] - qy];
    a += dx * tx + dy * ty;
    b += dx * ty - dy * tx;
    spread += dx * dx + dy * dy;
  });
  [a, b] = [a / spread, b / spread];
  return { a, b, x: qx - a * px + b * py, y: qy - b * px - a * py };
}

/** Whether the square of a face's landmarks is half to twice as large as its box. */
function isPlausible({ box, landmarks }, frame) {
  if (!landmarks || landmarks.every(([x, y]) => x === landmarks[0][0] && y === landmarks[0][1])) return false;
  const { a, b } = similarity(landmarks, frame), side = 1 / Math.max(Math.hypot(a, b), 1e-9), longer = longerSide(box);
  return 0.5 * longer <= side && side <= 2 * longer;
}

function alignFace(image, face, size, template) {
  const { a, b, x, y } = similarity(face.landmarks, template.map((point) => [point[0] * size, point[1] * size]));
  const scale = Math.hypot(a, b), square = a * a + b * b;
  if (size > scale * MAX_SIDE * Math.max(image.width, image.height)) throw new Error("these landmarks cannot belong to a face");
  // From px of the crop back to px of the picture: [c, d, e; -d, c, f].
  const c = a / square, d = b / square, e = -(c * x + d * y), f = d * x - c * y;

  // Cut out the upright rectangle that holds the turned square.
  const border = BORDER * Math.max(1, Math.hypot(c, d));
  const xs = [0, c, d, c + d].map((share) => share * size + e), ys = [0, -d, c, c - d].map((share) => share * size + f);
  const left = Math.floor(Math.min(...xs) - border), right = Math.ceil(Math.max(...xs) + border);
  const top = Math.floor(Math.min(...ys) - border), bottom = Math.ceil(Math.max(...ys) + border);
  let part = cut(image, left, top, right, bottom);

  // Shrink to about the final scale with a filter that averages, because the rotation below only interpolates.
  const { width, height } = part;
  if (scale < 1) {
    const sizes = [width, height].map((side) => Math.max(1, round(side * scale)));
    part = resize(part, sizes[0], sizes[1], { filter: "hamming", reducingGap: 3 });
  }
  const across = part.width / width, down = part.height / height;
  return warp(part, size, [c * across, d * across, (e - left) * across, -d * down, c * down, (f - top) * down]);
}

/**
 * Returns crops as the network's input, (N, C, h, w).
 *
 * @param {Picture[]} crops
 * @param {{size: number[], channels: number, mean: number[], std: number[], min_contrast: number, smooth: number}} spec
 */
export function preprocess(crops, spec) {
  const [height, width] = spec.size, plane = height * width;
  const data = new Float32Array(crops.length * spec.channels * plane);
  crops.forEach((crop, n) => {
    const pixels = withContrast(resize(spec.channels === 1 ? toGrey(crop) : crop, width, height).data, spec.min_contrast);
    for (let channel = 0; channel < spec.channels; channel++) {
      const image = data.subarray((n * spec.channels + channel) * plane, (n * spec.channels + channel + 1) * plane);
      for (let i = 0; i < plane; i++) {
        image[i] = (pixels[i * spec.channels + channel] / 255 - spec.mean[channel]) / spec.std[channel];
      }
      if (spec.smooth) smooth(image, width, height, spec.smooth ** 2 / 2);
    }
  });
  return { data, shape: [crops.length, spec.channels, height, width] };
}

/**
 * Returns pixels, 0 to 255, with at least that standard deviation, as a share of 255. The values of a dark or pale crop are
 * spread around mid-grey. A blank crop stays blank.
 */
function withContrast(pixels, least) {
  const [mean, deviation] = statistics(pixels), contrast = deviation / 255;
  if (contrast >= least || contrast === 0) return pixels;
  const share = contrast / least, middle = share * mean + (1 - share) * 127.5;
  return Float32Array.from(pixels, (value) => Math.min(255, Math.max(0, (value - mean) / share + middle)));
}

/** Returns the mean and the standard deviation of numbers. */
function statistics(numbers) {
  const mean = numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
  return [mean, Math.sqrt(numbers.reduce((sum, value) => sum + (value - mean) ** 2, 0) / numbers.length)];
}

/** Blurs an image in place along columns and rows by (share, 1 - 2 share, share); the border repeats the outermost pixels. */
function smooth(image, width, height, share) {
  const blur = (start, step, count) => {
    let before = image[start], value = before;
    for (let i = 0, at = start; i < count; i++, at += step) {
      const after = i + 1 < count ? image[at + step] : value;
      image[at] = share * before + (1 - 2 * share) * value + share * after;
      [before, value] = [value, after];
    }
  };
  for (let x = 0; x < width; x++) blur(x, width, height);
  for (let y = 0; y < height; y++) blur(y * width, 1, width);
}

const SIDE = 40; // side a crop is reduced to before it is measured, px
/** Both eyes and the mouth: y, x, half height and half width, as shares of the side. */
const PARTS = [[0.385, 0.31, 0.05, 0.09], [0.385, 0.69, 0.05, 0.09], [0.79, 0.5, 0.06, 0.12]];
const SHARPNESS = [6, 75]; // below, a face is blurred or blank; above, it is noise
const DETAIL = 6; // below this, an eye or the mouth is hidden
const CUT = 0.25; // share of the face outside the picture above which a part that matters is hidden
const HIDDEN_COST = 0.2; // what a hidden part takes from the confidence
const NOSE_DEPTH = 0.5; // of the tip of the nose, in distances between the eyes

/** How well the network can see a face. @param {Picture} crop @param {Face} face @param {Picture} image @param {number} minContrast */
export function measureQuality(crop, face, image, minContrast) {
  const { data: grey } = resize(toGrey(crop), SIDE, SIDE);
  const spread = Math.max(1, (255 * minContrast) / Math.max(1e-3, statistics(grey)[1]));
  const at = (y, x) => grey[Math.min(Math.max(y, 0), SIDE - 1) * SIDE + Math.min(Math.max(x, 0), SIDE - 1)];
  const laplacian = (y, x) => at(y - 1, x) + at(y + 1, x) + at(y, x - 1) + at(y, x + 1) - 4 * at(y, x);
  const deviation = (y, x, h, w) => {
    let count = 0, sum = 0, squares = 0;
    for (let row = round((y - h) * SIDE); row < round((y + h) * SIDE); row++) {
      for (let column = round((x - w) * SIDE); column < round((x + w) * SIDE); column++) {
        const value = laplacian(row, column);
        count++;
        sum += value;
        squares += value * value;
      }
    }
    return spread * Math.sqrt(Math.max(0, squares / count - (sum / count) ** 2));
  };
  const [left, top, right, bottom] = face.box;
  const wide = Math.max(0, Math.min(right, image.width) - Math.max(left, 0));
  const high = Math.max(0, Math.min(bottom, image.height) - Math.max(top, 0));
  return {
    size: Math.min(right - left, bottom - top),
    sharpness: deviation(0.5, 0.5, 0.5, 0.5),
    detail: Math.min(...PARTS.map((part) => deviation(...part))),
    brightness: statistics(grey)[0],
    ...pose(face.landmarks),
    cut: 1 - (wide * high) / area(face.box),
  };
}

/** How far a face is turned and tilted, degrees. */
function pose(landmarks) {
  if (!landmarks) return { yaw: null, roll: null };
  const [eye, otherEye, nose, mouth, otherMouth] = landmarks;
  const across = [otherEye[0] - eye[0], otherEye[1] - eye[1]], distance = Math.hypot(...across);
  if (distance < 1e-6) return { yaw: null, roll: null };
  const middle = [0, 1].map((i) => (eye[i] + otherEye[i] + mouth[i] + otherMouth[i]) / 4);
  const aside = ((nose[0] - middle[0]) * across[0] + (nose[1] - middle[1]) * across[1]) / distance ** 2;
  const degrees = (angle) => (angle * 180) / Math.PI;
  return { yaw: degrees(Math.atan(aside / NOSE_DEPTH)), roll: degrees(Math.atan2(across[1], across[0])) };
}

/** How much of a confidence can be trusted: less if a part of the face is hidden, nothing if there is nothing to see. */
export function trusted(confidence, quality) {
  if (!(quality.sharpness >= SHARPNESS[0] && quality.sharpness <= SHARPNESS[1])) return 0;
  const hidden = quality.detail < DETAIL || quality.cut > CUT;
  return hidden ? Math.max(0, confidence - HIDDEN_COST) : confidence;
}
