// The language of a page: asked for in the address, chosen before, or the browser's.

const LANGUAGE_KEPT = "polyres-language";

function chosenBefore() {
  try {
    return localStorage.getItem(LANGUAGE_KEPT);
  } catch {
    return null;
  }
}

/** @param {Object<string, Object<string, string>>} languages tag -> key -> text; "en" has every key */
export function speaker(languages) {
  const wanted = [new URLSearchParams(location.search).get("lang"), chosenBefore(), ...(navigator.languages ?? [])];
  let language = wanted.map((tag) => tag?.slice(0, 2).toLowerCase()).find((tag) => tag in languages) ?? "en";

  function currentLanguage() {
    return language;
  }

  function setLanguage(tag) {
    language = tag;
    try {
      localStorage.setItem(LANGUAGE_KEPT, tag);
    } catch {
      // kept for this visit only
    }
  }

  /** A text in the reader's language, with its {gaps} filled. */
  function tr(key, values = {}) {
    const text = languages[language][key] ?? languages.en[key];
    if (text === undefined) throw new Error(`no text ${key}`);
    return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name]));
  }

  return { currentLanguage, setLanguage, tr };
}
