// Ask a mien server for the expressions in a picture. `recognise` also works in a browser, with a File.
// In Node: node client.mjs photo.jpg [http://127.0.0.1:8000]

export async function recognise(picture, server = "http://127.0.0.1:8000") {
  const answer = await fetch(`${server}/v1/pictures`, { method: "POST", body: picture, headers: { "Content-Type": "image/jpeg" } });
  const found = await answer.json();
  if (!answer.ok) throw new Error(found.detail);
  return found.pictures[0].faces;
}

if (globalThis.process?.argv[2]) {
  const { readFile } = await import("node:fs/promises");
  const faces = await recognise(await readFile(process.argv[2]), process.argv[3]);
  for (const face of faces) console.log(face.label, face.confidence, face.unsure ? "unsure" : "");
}
