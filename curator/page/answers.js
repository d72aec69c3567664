// The answer to "which tag works on my machine?" as elements of the page.
//
// - Texts are put into the page as text; nothing of them is ever read as markup.
// - Each answer names its rules and their sources, and the tests that it rests on.
const answers = (facts, run) => {
  "use strict";

  const MOST_FRAMEWORKS = 8;
  const MOST_LISTED = 100;
  const SIGNS = {
    yes: ["tested", "✓", "yes"],
    unknown: ["untested", "?", "not known"],
    no: ["no", "✕", "no"],
  };

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (value !== null) made.setAttribute(key, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  const link = (image) =>
    element("a", { href: `image/${encodeURI(image.id)}.html` }, rules.name_of(image));

  function word(css, sign, text) {
    return element("span", { class: `word ${css}` }, element("span", { "aria-hidden": "true" }, sign), ` ${text}`);
  }

  const note = (...children) => element("span", { class: "note" }, ...children);
  const quiet = (...children) => element("p", { class: "quiet" }, ...children);
  const digits = (sm) => sm.replaceAll(".", "");

  function gpu_text({ name, sm }) {
    return name ? `${name} (sm_${digits(sm)})` : `sm ${sm}`;
  }

  function counted(texts) {
    const counts = new Map();
    for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
    return [...counts].map(([text, count]) => (count > 1 ? `${count} × ${text}` : text)).join(", ");
  }

  const described = (host) =>
    `${counted(host.gpus.map(gpu_text))} with driver ${host.driver} (${host.architecture})`;

  // Evidence

  const ran = (test) => `${test.gpu || "a GPU"} (sm_${digits(test.sm)}), driver ${test.driver}`;

  function confidence({ confidence: sure, test }, host) {
    if (sure === "tested") return null;
    if (!test) return quiet("Not tested on such a machine: follows by rule.");
    const day = test.at.slice(0, 10);
    return quiet(`Tested ${day} on ${ran(test)}; follows by rule for driver ${host.driver}.`);
  }

  const sure = (judgement) =>
    judgement.confidence === "rule" ? word("follows", "◐", "follows") : word("tested", "●", "tested");

  // Every gate with its rule and source, once where several GPUs come to the same.
  function grounds(judgement) {
    const rows = new Map();
    for (const { answer } of judgement.gates) {
      const text = rules.text_of(answer, facts);
      const told = note(element("code", {}, answer.rule), ` ${facts.rules[answer.rule].source}`);
      rows.set(`${answer.says} ${text}`, element("li", {}, word(...SIGNS[answer.says]), `: ${text}`, told));
    }
    const title = element("summary", {}, "Rules and sources");
    return element("details", {}, title, element("ul", { class: "grounds" }, ...rows.values()));
  }

  // Parts

  function command(image) {
    const code = element("code", {}, `${run} ${image.reference}`);
    const button = element("button", { type: "button", "data-copy": "" }, "Copy");
    return element("div", { class: "command" }, element("pre", {}, code), button);
  }

  function card({ image, judgement }, host) {
    return element(
      "article",
      {},
      element("h3", {}, link(image), " ", sure(judgement), image.state === "deprecated" ? note("deprecated") : null),
      command(image),
      element("p", {}, `Why: ${rules.why(judgement, facts)}.`),
      confidence(judgement, host),
      grounds(judgement),
    );
  }

  // What there was no place for: each framework leads to its own answer.
  function others(best, address) {
    const names = best.slice(MOST_FRAMEWORKS).map(({ image }) => image.framework);
    if (!names.length) return [];
    const links = names.flatMap((name, place) => [
      place ? ", " : " ",
      element("a", { href: address({ framework: name }) }, name),
    ]);
    return [element("p", {}, `Images of ${names.length} more run here, too:`, ...links)];
  }

  function misses(found) {
    if (!found.misses.length) return [];
    const title = found.ranked.length ? "Newer, but not on this machine" : "Nearest misses";
    const rows = found.misses.map(({ image, changes }) =>
      element("li", {}, link(image), ` needs ${changes.join(" and ")}`),
    );
    return [element("h3", {}, title), element("ul", {}, ...rows)];
  }

  function perhaps(found) {
    const rows = found.unsure.slice(0, found.ranked.length ? 0 : 3).map(({ image, judgement }) => {
      const { answer } = rules.first(judgement);
      return element("li", {}, link(image), `: ${rules.text_of(answer, facts)}`);
    });
    return rows.length ? [element("h3", {}, "Perhaps"), element("ul", {}, ...rows)] : [];
  }

  function everything(found) {
    const all = [...found.ranked, ...found.unsure, ...found.rejected];
    const named = new Set();
    const rows = all.slice(0, MOST_LISTED).map((match) => row(match, named));
    const heads = ["Image", "Runs", "Because"].map((text) => element("th", { scope: "col" }, text));
    const more = all.length - rows.length;
    return element(
      "details",
      {},
      element("summary", {}, all.length === 1 ? "The one image that was looked at" : `All ${all.length} images that were looked at`),
      element(
        "table",
        { class: "list" },
        element("thead", {}, element("tr", {}, ...heads)),
        element("tbody", {}, ...rows),
      ),
      more > 0 ? quiet(`and ${more} more: name a framework or a CUDA release.`) : null,
      sources([...named].sort()),
    );
  }

  function row({ image, judgement }, named) {
    const { says } = judgement;
    const gate = says === "yes" ? null : rules.first(judgement);
    const because = gate ? rules.text_of(gate.answer, facts) : rules.why(judgement, facts);
    if (gate) named.add(gate.answer.rule);
    return element(
      "tr",
      {},
      element("th", { scope: "row" }, link(image)),
      element("td", {}, says === "yes" ? sure(judgement) : word(...SIGNS[says])),
      element("td", {}, because, gate ? note(element("code", {}, gate.answer.rule)) : null),
    );
  }

  function sources(named) {
    const rows = named.map((name) =>
      element("div", {}, element("dt", {}, element("code", {}, name)), element("dd", {}, facts.rules[name].source)),
    );
    return rows.length ? element("dl", { class: "facts sources" }, ...rows) : null;
  }

  function summary(found, best, host) {
    const where = described(host);
    if (!found.considered) return "No image has all of that.";
    if (!best.length) return `Nothing is known to run on ${where}.`;
    const first = `${rules.name_of(best[0].image)} runs on ${where}`;
    return best.length > 1 ? `Images of ${best.length} frameworks run on ${where}.` : `${first}.`;
  }

  // The elements of an answer; `address` gives that of the same question with something changed.
  function parts(found, best, host, address) {
    return [
      ...best.slice(0, MOST_FRAMEWORKS).map((match) => card(match, host)),
      ...others(best, address),
      ...perhaps(found),
      ...misses(found),
      ...(found.considered ? [everything(found)] : []),
    ];
  }

  return { described, element, parts, summary };
};
