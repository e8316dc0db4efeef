/**
 * The worker that recognises: it loads the networks with onnxruntime-web, and answers one picture after another. `device.js`
 * starts it.
 */

import { cropFace, measureQuality, preprocess, trusted } from "./crop.js";
import { Detector } from "./detect.js";
import { area } from "./faces.js";
import { fromImageData } from "./pixels.js";

const BUILDS = {
  webgpu: { module: "ort.jspi.min.mjs", wasm: "ort-wasm-simd-threaded.jspi.wasm" },
  wasm: { module: "ort.wasm.min.mjs", wasm: "ort-wasm-simd-threaded.wasm" },
};
const MAX_THREADS = 4; // more do not make networks of this size faster

let detector, expression, model;

const handlers = { load, recognise };
let last = Promise.resolve(); // one message at a time

self.onmessage = ({ data: { id, name, values } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, result: await handlers[name](values) });
    } catch (error) {
      self.postMessage({ id, error: String(error?.message ?? error) });
    }
  });
};

/** Loads everything, on WebGPU if that works here, else on WASM. */
async function load({ base, provider, threads }) {
  const manifest = await (await fetchOk(`${base}device.json`)).json();
  model = await (await fetchOk(`${base}model.json`)).json();
  threads ??= self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency, MAX_THREADS) : 1;
  const providers = provider ? [provider] : (await hasWebGpu()) ? ["webgpu", "wasm"] : ["wasm"];
  for (const name of providers) {
    try {
      await open(base, manifest.files, name, threads);
      const grey = { data: new Uint8Array(3 * 64 * 64).fill(128), width: 64, height: 64, channels: 3 };
      await detector.search(grey, false); // WebGPU fails no earlier than here
      await expression({ image: preprocess([grey], model.preprocess) });
      const on = name === "webgpu" ? "WebGPU" : threads > 1 ? `WebAssembly on ${threads} threads` : "WebAssembly";
      return { classes: model.classes, unsureBelow: model.unsure_below, provider: on };
    } catch (error) {
      if (name === providers[providers.length - 1]) throw error;
    }
  }
}

/** Whether this browser has a graphics processor and what onnxruntime-web needs to use it. */
async function hasWebGpu() {
  if (!navigator.gpu || !("Suspending" in WebAssembly)) return false;
  const adapter = await navigator.gpu.requestAdapter();
  return adapter !== null && !adapter.info?.isFallbackAdapter;
}

/** Fetches what is needed and opens the networks. */
async function open(base, files, provider, threads) {
  const build = BUILDS[provider];
  const names = [
    `ort/${build.wasm}`, "model.onnx", "centerface.onnx",
    ...["pnet", "rnet", "onet"].flatMap((name) => [`mtcnn_${name}.onnx`, `mtcnn_${name}.bin`]),
  ];
  const total = names.reduce((sum, name) => sum + files[name], 0);
  let loaded = 0;
  const onBytes = (count) => self.postMessage({ progress: (loaded += count) / total });
  const contents = await Promise.all(names.map((name) => fetchBytes(base + name, onBytes)));
  const bytes = Object.fromEntries(names.map((name, i) => [name, contents[i]]));

  const ort = await import(`${base}ort/${build.module}`);
  ort.env.logLevel = "error";
  ort.env.wasm.wasmPaths = `${base}ort/`;
  ort.env.wasm.wasmBinary = bytes[`ort/${build.wasm}`].buffer;
  ort.env.wasm.numThreads = threads;

  const network = async (name, executionProviders, externalData) => {
    const session = await ort.InferenceSession.create(bytes[name], { executionProviders, externalData });
    return (inputs) => {
      const tensors = Object.entries(inputs).map(([key, { data, shape }]) => [key, new ort.Tensor("float32", data, shape)]);
      return session.run(Object.fromEntries(tensors));
    };
  };
  const mtcnn = (name) => {
    const path = `mtcnn_${name}.bin`; // the weights, as the ONNX file names them
    return network(`mtcnn_${name}.onnx`, ["wasm"], [{ path, data: bytes[path] }]);
  };
  const large = provider === "webgpu" ? ["webgpu", "wasm"] : ["wasm"]; // MTCNN's networks are too small for WebGPU
  const networks = { centerface: await network("centerface.onnx", large) };
  for (const name of ["pnet", "rnet", "onet"]) networks[name] = await mtcnn(name);
  const { min_face: minFace, threshold, max_size: maxSize } = model.detector;
  detector = new Detector(networks, { minFace, threshold, maxSize });
  expression = await network("model.onnx", large);
}

/**
 * Returns the answer to one picture, in the shape of an entry of `pictures` in the answer of `POST /v1/pictures`.
 *
 * @param {{image: ImageData, source: string, video: boolean}} values
 */
async function recognise({ image, source, video }) {
  const picture = fromImageData(image);
  const large = ({ box }) => model.min_face === null || Math.min(box[2] - box[0], box[3] - box[1]) >= model.min_face;
  const name = `${source} ${image.width}x${image.height}`;
  const detected = video ? await detector.detectFrame(picture, name) : await detector.detect(picture);
  let found = detected.filter(large).sort((a, b) => area(b.box) - area(a.box));
  if (model.max_faces !== null) found = found.slice(0, model.max_faces);
  const crops = found.map((face) => cropFace(picture, face, model.preprocess, model.template, model.frame));
  const logits = found.length ? (await expression({ image: preprocess(crops, model.preprocess) })).logits.data : [];
  const count = model.classes.length;
  const faces = found.map((face, i) => {
    const probs = calibratedProbs([...logits.slice(i * count, (i + 1) * count)], model.calibration);
    return row(face, i + 1, probs, measureQuality(crops[i], face, picture, model.preprocess.min_contrast), source);
  });
  return { source, width: image.width, height: image.height, faces, error: null };
}

/** The calibrated probabilities of logits: `mien.calibration.calibrated_probs`. */
function calibratedProbs(logits, { temperature = 1, power = 1, lead = 0, bias = [] }) {
  const largest = Math.max(...logits), first = logits.indexOf(largest);
  const raised = logits.map((z, k) => Math.exp(-(((largest - z) / temperature) ** power) + (k === first ? lead : 0) + (bias[k] ?? 0)));
  const sum = raised.reduce((a, b) => a + b);
  return raised.map((value) => value / sum);
}

/** A row of mien's table: `mien.output.table.row`. */
function row(face, number, probs, quality, source) {
  const rounded = (value, digits) => (value === null ? null : Math.round(value * 10 ** digits) / 10 ** digits + 0);
  const px = (value) => rounded(value, 2);
  const confidence = Math.max(...probs);
  const [left, top, right, bottom] = face.box.map(px);
  const points = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"].flatMap((name, i) =>
    ["x", "y"].map((axis, k) => [`${name}_${axis}`, face.landmarks ? px(face.landmarks[i][k]) : null]),
  );
  return {
    source, frame: null, time: null, track: null, face: number, left, top, right, bottom, ...Object.fromEntries(points),
    score: rounded(face.score, 6),
    ...Object.fromEntries(Object.entries(quality).map(([name, value]) => [name, px(value)])),
    label: model.classes[probs.indexOf(confidence)],
    confidence: rounded(confidence, 6),
    unsure: trusted(confidence, quality) < model.unsure_below,
    set: null,
    ...Object.fromEntries(model.classes.map((name, k) => [name, rounded(probs[k], 6)])),
  };
}

async function fetchOk(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} could not be loaded (${response.status}); reload the page`);
  return response;
}

/** The bytes of a file; each part that arrives is reported. */
async function fetchBytes(url, onBytes) {
  const reader = (await fetchOk(url)).body.getReader(), parts = [];
  for (let { done, value } = await reader.read(); !done; { done, value } = await reader.read()) {
    parts.push(value);
    onBytes(value.length);
  }
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}
