/**
 * Recognition on this device: the same networks and the same arithmetic as the server, in a worker, so that no picture leaves
 * the browser.
 *
 *     const device = await load("device/", (share) => show(share));
 *     const answer = await device.recognise(context.getImageData(0, 0, width, height), "photo.jpg");
 *
 * @typedef {{source: string, width: number, height: number, faces: Record<string, any>[], error: string | null}} Answer
 *   an entry of `pictures` in the answer of `POST /v1/pictures`
 * @typedef {object} Device
 * @property {string[]} classes  the expressions, in the order of the probabilities
 * @property {number} unsureBelow  answers with a confidence below this are unsure
 * @property {string} provider  what the networks run on, such as "WebGPU" or "WebAssembly on 2 threads"
 * @property {(image: ImageData, source: string, options?: {video?: boolean}) => Promise<Answer>} recognise  `video` says that
 *   the picture is the next frame of the video or camera `source`: faces are followed, which is much faster
 * @property {() => void} close  stops the worker
 */

/**
 * Loads the networks.
 *
 * @param {string} base  where the files are, relative to the page, ending with a slash
 * @param {(share: number) => void} [onProgress]  called with the share of the files that has arrived, 0 to 1
 * @param {{provider?: "webgpu" | "wasm", threads?: number}} [options]  by default the best that this browser has
 * @returns {Promise<Device>}
 */
export async function load(base, onProgress = () => {}, options = {}) {
  const worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  const waiting = new Map(); // by the number of the message
  let number = 0;
  const failAll = (reason) => {
    waiting.forEach(({ reject }) => reject(new Error(reason)));
    waiting.clear();
  };
  worker.onerror = (event) => failAll(event.message || "the worker could not be started; reload the page");
  worker.onmessage = ({ data: { id, result, error, progress } }) => {
    if (progress !== undefined) return onProgress(progress);
    const { resolve, reject } = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) resolve(result);
    else reject(new Error(error));
  };
  const ask = (name, values) =>
    new Promise((resolve, reject) => {
      waiting.set(++number, { resolve, reject });
      worker.postMessage({ id: number, name, values });
    });
  const close = () => {
    worker.terminate();
    failAll("recognition was stopped");
  };
  try {
    const ready = await ask("load", { base: new URL(base, document.baseURI).href, ...options });
    const recognise = (image, source, { video = false } = {}) => ask("recognise", { image, source, video });
    return { ...ready, recognise, close };
  } catch (error) {
    close();
    throw error;
  }
}
