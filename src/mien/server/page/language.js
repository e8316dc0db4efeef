// The page's language: what the visitor chose, else the server's, else the browser's, else English.

const ENGLISH = "en";
const table = await fetch("languages.json")
  .then((response) => response.json())
  .catch(() => ({ names: { [ENGLISH]: "English" }, texts: {} }));

function stored() {
  try {
    return localStorage.getItem("mien-language");
  } catch {
    return null; // this browser keeps nothing
  }
}

const wanted = [stored(), table.default, ...navigator.languages, ENGLISH].filter(Boolean);
const known = (code) => [code, code.split("-")[0]].find((each) => Object.hasOwn(table.names, each));

/** Code of the language, such as de. */
export const language = known(wanted.find(known));

const texts = table.texts[language] ?? {};

/** Return an English text in the page's language, with the values of its placeholders. */
export function t(text, values = {}) {
  const found = Object.hasOwn(texts, text) ? texts[text] : text;
  return Object.keys(values).length ? found.replace(/\{(\w+)\}/g, (_, name) => values[name]) : found;
}

/** Return "1 face" or "3 faces": `one` and `many` are texts with {count}. */
export const plural = (count, one, many) => t(count === 1 ? one : many, { count: count.toLocaleString(language) });

/** Return "a, b or c". */
export const either = (names) => new Intl.ListFormat(language === ENGLISH ? "en-GB" : language, { type: "disjunction" }).format(names);

/** Translate what index.html says, and fill the list of languages; `mayReload` is asked before another one is chosen. */
export function translatePage(picker, mayReload) {
  document.documentElement.lang = language;
  const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const [, before, text, after] = /^(\s*)(.*?)(\s*)$/s.exec(node.data);
    if (text) node.data = `${before}${t(text.replace(/\s+/g, " "))}${after}`;
  }
  for (const name of ["aria-label", "content"]) {
    for (const element of document.querySelectorAll(`[${name}]`)) element.setAttribute(name, t(element.getAttribute(name)));
  }
  for (const [code, name] of Object.entries(table.names)) {
    const option = new Option(name, code, code === language, code === language);
    option.lang = code;
    picker.append(option);
  }
  picker.addEventListener("change", () => {
    if (!mayReload()) {
      picker.value = language;
      return;
    }
    try {
      localStorage.setItem("mien-language", picker.value);
    } catch {
      // the choice lasts as long as the page
    }
    location.reload();
  });
}
