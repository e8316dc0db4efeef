// The table of all results, in the form that `mien predict --table` writes: same columns, same cells.

const INTEGERS = new Set(["frame", "track", "face"]);
const FORMULA = /^[=+\-@\t\r＝＋－＠]/;

/** Return a number as Python writes it, so that the page's table and mien's are the same text. */
function number(value) {
  if (value !== 0 && Math.abs(value) < 1e-4) return value.toExponential().replace(/e-(\d)$/, "e-0$1");
  return Number.isInteger(value) ? `${value}.0` : String(value);
}

function cell(name, value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return INTEGERS.has(name) ? String(value) : number(value);
  if (typeof value !== "string") return String(value);
  const text = FORMULA.test(value) ? `./${value}` : value; // a spreadsheet would run it
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Return rows, which all have the same columns, as CSV. */
export function csv(rows) {
  const names = Object.keys(rows[0]);
  const lines = [names.map((name) => cell("", name)), ...rows.map((row) => names.map((name) => cell(name, row[name])))];
  return lines.map((line) => line.join(",") + "\n").join("");
}

/** Hand a file to the user. */
export function download(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
