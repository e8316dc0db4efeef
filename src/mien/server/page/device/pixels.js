/**
 * Pictures as typed arrays, resized and turned with the very arithmetic of Pillow, so that the networks see the same pixels
 * as in Python. A canvas would scale differently in every browser.
 *
 * @typedef {{data: Uint8Array, width: number, height: number, channels: 1 | 3}} Picture  RGB or grey, row by row
 */

/** Bits after the point of Pillow's filter weights. */
const PRECISION = 22;

/** Pillow's filters: half their width in px of the smaller picture, and their value at a distance. */
const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    support: 1,
    at: (x) => {
      const turns = Math.abs(x) * Math.PI;
      return turns === 0 ? 1 : Math.abs(x) >= 1 ? 0 : (Math.sin(turns) / turns) * (0.54 + 0.46 * Math.cos(turns));
    },
  },
};

/** Rounds as Python does: halves to the even neighbour. @param {number} x */
export function round(x) {
  const down = Math.floor(x);
  if (x - down !== 0.5) return Math.round(x);
  return down % 2 === 0 ? down : down + 1;
}

/** Returns the pixels of a canvas as RGB; what is transparent becomes white. @param {ImageData} image @returns {Picture} */
export function fromImageData(image) {
  const { width, height, data: rgba } = image;
  const data = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; i < rgba.length; i += 4) {
    const alpha = rgba[i + 3];
    for (let c = 0; c < 3; c++) {
      data[j++] = alpha === 255 ? rgba[i + c] : Math.round((rgba[i + c] * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return { data, width, height, channels: 3 };
}

/** Returns a picture in grey, by ITU-R 601 luma. @param {Picture} picture @returns {Picture} */
export function toGrey({ data, width, height, channels }) {
  if (channels === 1) return { data, width, height, channels };
  const grey = new Uint8Array(width * height);
  for (let i = 0, j = 0; i < grey.length; i++, j += 3) {
    grey[i] = (data[j] * 19595 + data[j + 1] * 38470 + data[j + 2] * 7471 + 0x8000) >> 16;
  }
  return { data: grey, width, height, channels: 1 };
}

/**
 * Returns a rectangle of a picture. Outside the picture it repeats the nearest edge, or is black.
 *
 * @param {Picture} picture
 * @param {number} left  px; whole numbers, as the other edges
 * @param {number} top
 * @param {number} right
 * @param {number} bottom
 * @param {"edge" | "black"} outside
 * @returns {Picture}
 */
export function cut({ data, width, height, channels }, left, top, right, bottom, outside = "edge") {
  const wide = Math.max(0, right - left), high = Math.max(0, bottom - top);
  const part = new Uint8Array(wide * high * channels);
  for (let y = 0, to = 0; y < high; y++) {
    const row = Math.min(Math.max(top + y, 0), height - 1);
    for (let x = 0; x < wide; x++, to += channels) {
      const column = Math.min(Math.max(left + x, 0), width - 1);
      if (outside === "black" && (row !== top + y || column !== left + x)) continue;
      const from = (row * width + column) * channels;
      for (let c = 0; c < channels; c++) part[to + c] = data[from + c];
    }
  }
  return { data: part, width: wide, height: high, channels };
}

/** Returns a picture turned counter-clockwise by quarters, as numpy.rot90. @param {Picture} picture @returns {Picture} */
export function rotate(picture, quarters) {
  for (let turn = 0; turn < ((quarters % 4) + 4) % 4; turn++) {
    const { data, width, height, channels } = picture;
    const turned = new Uint8Array(data.length);
    for (let y = 0, to = 0; y < width; y++) {
      for (let x = 0; x < height; x++, to += channels) {
        const from = (x * width + width - 1 - y) * channels;
        for (let c = 0; c < channels; c++) turned[to + c] = data[from + c];
      }
    }
    picture = { data: turned, width: height, height: width, channels };
  }
  return picture;
}

/**
 * Returns a picture in another size, as Pillow's `resize`.
 *
 * @param {Picture} picture
 * @param {number} width  px
 * @param {number} height  px
 * @param {{filter?: "bilinear" | "hamming", reducingGap?: number}} options  reducingGap: first average whole blocks of
 *   pixels, down to this many times the final size; it saves time
 * @returns {Picture}
 */
export function resize(picture, width, height, { filter = "bilinear", reducingGap = 0 } = {}) {
  let [right, bottom] = [picture.width, picture.height]; // the edges of what is resized, px of the reduced picture
  if (reducingGap) {
    const across = Math.floor(right / width / reducingGap) || 1;
    const down = Math.floor(bottom / height / reducingGap) || 1;
    if (across > 1 || down > 1) {
      [right, bottom] = [Math.fround(right / across), Math.fround(bottom / down)];
      picture = reduce(picture, across, down);
    }
  }
  const kernel = FILTERS[filter];
  const rows = () => {
    if (width !== picture.width || right !== picture.width) picture = resizeRows(picture, width, right, kernel);
  };
  const columns = () => {
    if (height !== picture.height || bottom !== picture.height) picture = resizeColumns(picture, height, bottom, kernel);
  };
  // Each step rounds to whole numbers, so their order matters. This is the order of Pillow 13; older ones begin with the rows.
  const columnsFirst = height < picture.height && picture.height - height > 2 * (picture.width - width);
  for (const step of columnsFirst ? [columns, rows] : [rows, columns]) step();
  return picture;
}

/** Averages blocks of pixels, as Pillow's `reduce`; those at the right and lower edge may be smaller. */
function reduce({ data, width, height, channels }, across, down) {
  const wide = Math.ceil(width / across), high = Math.ceil(height / down);
  const reduced = new Uint8Array(wide * high * channels);
  for (let y = 0, to = 0; y < high; y++) {
    const lastRow = Math.min((y + 1) * down, height);
    for (let x = 0; x < wide; x++, to += channels) {
      const lastColumn = Math.min((x + 1) * across, width);
      const count = (lastRow - y * down) * (lastColumn - x * across);
      const share = Math.floor(2 ** 24 / count);
      for (let c = 0; c < channels; c++) {
        let sum = count >> 1;
        for (let row = y * down; row < lastRow; row++) {
          for (let column = x * across; column < lastColumn; column++) sum += data[(row * width + column) * channels + c];
        }
        reduced[to + c] = Math.floor((sum * share) / 2 ** 24);
      }
    }
  }
  return { data: reduced, width: wide, height: high, channels };
}

/** For each pixel of a resized line: the first pixel it reads, and the whole-number weights of that and the next ones. */
function filterWeights(size, end, newSize, { support, at }) {
  const scale = end / newSize, stretch = Math.max(scale, 1);
  const weights = [];
  for (let i = 0; i < newSize; i++) {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support * stretch + 0.5));
    const last = Math.min(size, Math.trunc(centre + support * stretch + 0.5));
    const values = [];
    let sum = 0;
    for (let x = first; x < last; x++) {
      values.push(at((x - centre + 0.5) * (1 / stretch)));
      sum += values[values.length - 1];
    }
    const whole = values.map((value) => Math.trunc(0.5 + (sum ? value / sum : value) * 2 ** PRECISION));
    weights.push({ first, values: Int32Array.from(whole) });
  }
  return weights;
}

function resizeRows({ data, width, height, channels }, newWidth, end, filter) {
  const weights = filterWeights(width, end, newWidth, filter);
  const resized = new Uint8Array(newWidth * height * channels);
  for (let y = 0, to = 0; y < height; y++) {
    for (const { first, values } of weights) {
      for (let c = 0; c < channels; c++) {
        let sum = 1 << (PRECISION - 1);
        let from = (y * width + first) * channels + c;
        for (let k = 0; k < values.length; k++, from += channels) sum += data[from] * values[k];
        resized[to++] = Math.min(255, sum >> PRECISION);
      }
    }
  }
  return { data: resized, width: newWidth, height, channels };
}

function resizeColumns({ data, width, height, channels }, newHeight, end, filter) {
  const stride = width * channels;
  const resized = new Uint8Array(stride * newHeight);
  let to = 0;
  for (const { first, values } of filterWeights(height, end, newHeight, filter)) {
    for (let x = 0; x < stride; x++) {
      let sum = 1 << (PRECISION - 1);
      for (let k = 0, from = first * stride + x; k < values.length; k++, from += stride) sum += data[from] * values[k];
      resized[to++] = Math.min(255, sum >> PRECISION);
    }
  }
  return { data: resized, width, height: newHeight, channels };
}

/**
 * Returns a square whose pixels are read through an affine map, as Pillow's `transform` with its bicubic filter.
 *
 * @param {Picture} picture
 * @param {number} size  the square's side, px
 * @param {number[]} map  six numbers, row by row: from px of the square to px of the picture
 * @returns {Picture}
 */
export function warp({ data, width, height, channels }, size, [xx, xy, x0, yx, yy, y0]) {
  const warped = new Uint8Array(size * size * channels);
  const columns = [0, 0, 0, 0], lines = [0, 0, 0, 0];
  for (let row = 0, to = 0; row < size; row++) {
    for (let column = 0; column < size; column++, to += channels) {
      const x = xx * (column + 0.5) + xy * (row + 0.5) + x0, y = yx * (column + 0.5) + yy * (row + 0.5) + y0;
      if (x < 0 || y < 0 || x >= width || y >= height) continue;
      const left = Math.floor(x - 0.5), top = Math.floor(y - 0.5);
      for (let k = 0; k < 4; k++) columns[k] = Math.min(Math.max(left - 1 + k, 0), width - 1) * channels;
      for (let c = 0; c < channels; c++) {
        for (let k = 0; k < 4; k++) {
          // Above the picture its first row is read, but below its end the line before is used again.
          const line = top - 1 + k;
          if (k > 0 && (line < 0 || line >= height)) {
            lines[k] = lines[k - 1];
            continue;
          }
          const from = Math.min(Math.max(line, 0), height - 1) * width * channels + c;
          lines[k] = cubic(
            data[from + columns[0]], data[from + columns[1]], data[from + columns[2]], data[from + columns[3]], x - 0.5 - left,
          );
        }
        const value = cubic(lines[0], lines[1], lines[2], lines[3], y - 0.5 - top);
        warped[to + c] = value <= 0 ? 0 : value >= 255 ? 255 : value; // cut off, not rounded
      }
    }
  }
  return { data: warped, width: size, height: size, channels };
}

/** The cubic through four neighbours, a share of the way from the second to the third. */
function cubic(a, b, c, d, share) {
  return b + share * (c - a + share * (2 * (a - b) + c - d + share * (b - a + d - c)));
}
