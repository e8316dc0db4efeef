/**
 * Faces and their geometry, as in `mien.structures` and `mien.faces.detect`.
 *
 * @typedef {[number, number]} Point  x and y, px
 * @typedef {object} Face
 * @property {number[]} box  left, top, right, bottom, px; may reach outside the picture
 * @property {number} score  0 to 1
 * @property {Point[] | null} landmarks  left eye, right eye, nose, left and right mouth corner
 */

const single = Math.fround; // Python keeps faces in single precision; so does this, because coordinates are rounded later

/** @param {number[]} box @param {number} score @param {Point[] | null} landmarks @returns {Face} */
export function createFace(box, score, landmarks) {
  return { box: box.map(single), score, landmarks: landmarks && landmarks.map(([x, y]) => [single(x), single(y)]) };
}

/** The longer side of a box, px. @param {number[]} box */
export const longerSide = ([left, top, right, bottom]) => Math.max(right - left, bottom - top);

/** @param {number[]} box */
export const area = ([left, top, right, bottom]) => (right - left) * (bottom - top);

/** How far a face is turned clockwise, degrees: the direction from its eyes to its mouth. @param {Point[]} landmarks */
export function roll([eye, otherEye, , mouth, otherMouth]) {
  const right = (mouth[0] + otherMouth[0] - eye[0] - otherEye[0]) / 2;
  const down = (mouth[1] + otherMouth[1] - eye[1] - otherEye[1]) / 2;
  return (Math.atan2(-right, down) * 180) / Math.PI;
}

/** The quarter turns, 0 to 3, that bring a face upright. @param {Point[] | null} landmarks */
export const quarterTurns = (landmarks) => (landmarks ? (Math.round(roll(landmarks) / 90) + 4) % 4 : 0);

/** Where a face is after its picture was turned counter-clockwise by quarters. @param {Face} face @returns {Face} */
export function turn(face, width, height, quarters) {
  let points = [face.box.slice(0, 2), face.box.slice(2), ...(face.landmarks ?? [])];
  for (let i = 0; i < ((quarters % 4) + 4) % 4; i++) {
    points = points.map(([x, y]) => [y, width - x]);
    [width, height] = [height, width];
  }
  const [[x0, y0], [x1, y1], ...landmarks] = points;
  const box = [Math.min(x0, x1), Math.min(y0, y1), Math.max(x0, x1), Math.max(y0, y1)];
  return createFace(box, face.score, landmarks.length ? landmarks : null);
}

/** A face moved and scaled: each coordinate times `scale` plus `shift`, in x and y. @param {Face} face @returns {Face} */
export function place(face, [scaleX, scaleY], [shiftX, shiftY]) {
  const move = ([x, y]) => [x * scaleX + shiftX, y * scaleY + shiftY];
  const box = [...move(face.box.slice(0, 2)), ...move(face.box.slice(2))];
  return createFace(box, face.score, face.landmarks && face.landmarks.map(move));
}

/** The square around a box. @param {number[]} box */
export function square(box) {
  const half = longerSide(box) / 2, x = (box[0] + box[2]) / 2, y = (box[1] + box[3]) / 2;
  return [x - half, y - half, x + half, y + half].map(single);
}

/**
 * Returns the faces that overlap no better one, highest score first.
 *
 * @param {Face[]} faces
 * @param {number} limit  largest overlap: intersection over union, or over the smaller area
 */
export function suppress(faces, limit, ofSmaller = false) {
  const kept = [];
  for (const face of [...faces].sort((a, b) => b.score - a.score)) {
    const overlaps = (other) => {
      const width = Math.min(face.box[2], other.box[2]) - Math.max(face.box[0], other.box[0]);
      const height = Math.min(face.box[3], other.box[3]) - Math.max(face.box[1], other.box[1]);
      const shared = Math.max(width, 0) * Math.max(height, 0);
      const whole = ofSmaller ? Math.min(area(face.box), area(other.box)) : area(face.box) + area(other.box) - shared;
      return shared > limit * whole;
    };
    if (!kept.some(overlaps)) kept.push(face);
  }
  return kept;
}
