// "Which tag works on my machine?": reads the form or the address, asks the rules, shows the answer.
//
// - The address (`#driver=535&gpu=A100&framework=pytorch`) and the form say the same.
// - Texts are put into the page as text; nothing of them is ever read as markup.
const selector = (() => {
  "use strict";

  const { ValueError } = versions;
  const WISHES = ["framework", "version", "cuda", "python", "channel", "prefer"];
  const FIELDS = ["driver", "gpu", ...WISHES, "arch"];
  const MOST_FRAMEWORKS = 8;
  const MOST_LISTED = 100;
  const COMMAND = "docker run --rm -it --gpus all --shm-size 8g";
  const LONGEST_DRIVER = 40;
  const LATER_MS = 150;

  const by_id = (id) => document.getElementById(id);
  const read = (id) => JSON.parse(by_id(id).textContent);

  const facts = read("facts");
  const catalogue = read("catalogue");
  const images = rules.read_catalogue(catalogue);
  const machine = words(facts);
  const form = by_id("selector");
  const field = Object.fromEntries(FIELDS.map((name) => [name, form.elements[name]]));
  // GPUs as they were pasted: one that has no name we know cannot be typed.
  let pasted = { text: "", gpus: [] };

  // What is asked

  // Reads a field; what it says of a mistake stands in `mistakes`, by field.
  function attempt(name, mistakes, action) {
    try {
      return action();
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      mistakes.set(name, error.message);
      return null;
    }
  }

  function gpus_of(text) {
    if (text && text === pasted.text) return pasted.gpus;
    return text.split(",").filter((name) => name.trim()).map(machine.gpu);
  }

  function asked(mistakes) {
    const value = Object.fromEntries(FIELDS.map((name) => [name, field[name].value.trim()]));
    const gpus = attempt("gpu", mistakes, () => gpus_of(value.gpu)) ?? [];
    const driver = attempt("driver", mistakes, () => value.driver && machine.driver(value.driver));
    const host = {
      driver: driver || null,
      gpus,
      architecture: value.arch || machine.architecture_of(gpus),
      docker: null,
    };
    const wishes = Object.fromEntries(WISHES.map((name) => [name, value[name] || null]));
    return { host, wishes, is_given: Boolean(host.driver || gpus.length) };
  }

  // Put what nvidia-smi printed into the fields.
  function take(text) {
    const host = machine.pasted(text);
    field.driver.value = host.driver ?? "";
    if (host.gpus.length) {
      const names = host.gpus.map((gpu) => gpu.name ?? gpu.sm ?? "?");
      pasted = { text: names.join(", "), gpus: host.gpus };
      field.gpu.value = pasted.text;
    }
  }

  const is_pasted = (text) => /[|,\n]/.test(text.trim()) || text.trim().length > LONGEST_DRIVER;

  // What is shown

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

  const digits = (sm) => sm.replaceAll(".", "");

  function gpu_text({ name, sm }) {
    if (sm === null) return name || "a GPU";
    return name ? `${name} (sm_${digits(sm)})` : `sm ${sm}`;
  }

  function counted(texts) {
    const counts = new Map();
    for (const text of texts) counts.set(text, (counts.get(text) ?? 0) + 1);
    return [...counts].map(([text, count]) => (count > 1 ? `${count} × ${text}` : text)).join(", ");
  }

  function described(host) {
    const gpus = counted(host.gpus.map(gpu_text)) || "a GPU that is not known";
    const driver = host.driver ? `driver ${host.driver}` : "a driver that is not known";
    return `${gpus} with ${driver} (${host.architecture})`;
  }

  function confidence(judgement, host) {
    const { test } = judgement;
    if (!test) return "Not tested on such a machine: follows by rule";
    const where = `${test.gpu || "a GPU"} (sm_${digits(test.sm)}), driver ${test.driver}`;
    return `Tested ${test.at.slice(0, 10)} on ${where}; follows by rule for driver ${host.driver}`;
  }

  const sure = (judgement) =>
    judgement.confidence === "rule" ? word("follows", "◐", "follows") : word("tested", "●", "tested");

  function command(image) {
    const code = element("code", {}, `${COMMAND} ${image.reference}`);
    const button = element("button", { type: "button", "data-copy": "" }, "Copy");
    return element("div", { class: "command" }, element("pre", {}, code), button);
  }

  function card({ image, judgement }, host) {
    const state = image.state === "deprecated" ? element("span", { class: "note" }, "deprecated") : null;
    return element(
      "article",
      {},
      element("h3", {}, link(image), " ", sure(judgement), state),
      command(image),
      element("p", {}, `Why: ${rules.why(judgement, facts)}.`),
      judgement.confidence === "tested"
        ? null
        : element("p", { class: "quiet" }, `${confidence(judgement, host)}.`),
    );
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
      const gate = rules.first(judgement);
      return element("li", {}, link(image), gate ? `: ${rules.text_of(gate.answer, facts)}` : "");
    });
    return rows.length ? [element("h3", {}, "Perhaps"), element("ul", {}, ...rows)] : [];
  }

  function everything(found) {
    const all = [
      ...found.ranked.map((match) => [match, sure(match.judgement)]),
      ...found.unsure.map((match) => [match, word("untested", "?", "not known")]),
      ...found.rejected.map((match) => [match, word("no", "✕", "no")]),
    ];
    const rows = all.slice(0, MOST_LISTED).map(([{ image, judgement }, sign]) => {
      const gate = rules.first(judgement);
      const reason = gate ? rules.text_of(gate.answer, facts) : rules.why(judgement, facts);
      return element(
        "tr",
        {},
        element("th", { scope: "row" }, link(image)),
        element("td", {}, sign),
        element("td", {}, reason),
      );
    });
    const heads = ["Image", "Runs", "Because"].map((text) => element("th", { scope: "col" }, text));
    const more = all.length - rows.length;
    return element(
      "details",
      {},
      element("summary", {}, `All ${all.length} images that were looked at`),
      element(
        "table",
        { class: "list" },
        element("thead", {}, element("tr", {}, ...heads)),
        element("tbody", {}, ...rows),
      ),
      more > 0 ? element("p", { class: "quiet" }, `and ${more} more: name a framework or a CUDA release.`) : null,
    );
  }

  function summary(found, best, host) {
    const where = described(host);
    if (!found.considered) return "No image has all of that.";
    if (!best.length) return `Nothing is known to run on ${where}.`;
    const first = `${rules.name_of(best[0].image)} runs on ${where}`;
    return best.length > 1 ? `Images of ${best.length} frameworks run on ${where}.` : `${first}.`;
  }

  // What each cell of the grid comes to on the host: the best of its images.
  function mark(host, is_given) {
    const judge = new rules.Judge(host, facts);
    const says = new Map();
    for (const image of is_given ? images.filter(rules.is_offered) : []) {
      const minor = /^[0-9]+(\.[0-9]+)?/.exec(image.version)?.[0] ?? image.version;
      const key = `${image.framework} ${minor} ${image.label.cuda}`;
      const found = judge.image(image).says;
      const order = ["no", "unknown", "yes"];
      if (order.indexOf(found) > order.indexOf(says.get(key))) says.set(key, found);
    }
    const told = { yes: "✓ runs here", no: "✕ not here", unknown: "? not known" };
    for (const cell of document.querySelectorAll("[data-cell]")) {
      cell.querySelector(".here")?.remove();
      const found = says.get(cell.dataset.cell);
      if (found) cell.append(element("span", { class: `here ${found}` }, told[found]));
    }
    by_id("grid-host").hidden = !is_given;
    by_id("grid-host").textContent = `Marked for ${described(host)}.`;
  }

  function show_mistakes(mistakes) {
    for (const name of ["driver", "gpu", "version"]) {
      const text = by_id(`${name}-error`);
      text.hidden = !mistakes.has(name);
      text.textContent = mistakes.get(name) ?? "";
      if (mistakes.has(name)) field[name].setAttribute("aria-invalid", "true");
      else field[name].removeAttribute("aria-invalid");
    }
  }

  function parts_of(found, best, host) {
    return [
      ...best.slice(0, MOST_FRAMEWORKS).map((match) => card(match, host)),
      ...perhaps(found),
      ...misses(found),
      ...(found.considered ? [everything(found)] : []),
    ];
  }

  // Show the answer to a question, or the mistakes in it; the mistakes stand at their fields, and
  // are told once more to those who do not see where.
  function show(mistakes, { host, wishes, is_given }) {
    const resolve = () => rules.resolve(images, host, wishes, facts);
    const found = is_given && !mistakes.size ? attempt("version", mistakes, resolve) : null;
    const best = found ? rules.best_of(found) : [];
    const text = found ? summary(found, best, host) : [...mistakes.values()].join(" ");
    show_mistakes(mistakes);
    mark(host, Boolean(found));
    by_id("examples").hidden = Boolean(text);
    by_id("summary").textContent = text;
    by_id("summary").classList.toggle("hidden", mistakes.size > 0);
    by_id("answer").replaceChildren(...(found ? parts_of(found, best, host) : []));
  }

  function update() {
    const mistakes = new Map();
    show(mistakes, asked(mistakes));
  }

  // The address

  function write_hash() {
    const found = new URLSearchParams();
    for (const name of FIELDS) {
      const value = field[name].value.trim();
      if (value) found.set(name, value);
    }
    const text = found.toString().replaceAll("%2C", ",");
    history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
  }

  function read_hash() {
    const found = new URLSearchParams(location.hash.slice(1));
    if (![...found.keys()].some((name) => FIELDS.includes(name))) return false;
    for (const name of FIELDS) {
      const values = found.getAll(name).map((value) => value.trim()).filter(Boolean);
      field[name].value = values.join(", ");
      if (field[name].selectedIndex === -1) add_option(field[name], values[0]);
    }
    return true;
  }

  // An address may ask for what is no longer on offer: that it says so is the answer.
  function add_option(select, value) {
    select.append(element("option", {}, value));
    select.value = value;
  }

  let timer = 0;

  function changed() {
    clearTimeout(timer);
    timer = setTimeout(now, LATER_MS);
  }

  function now() {
    clearTimeout(timer);
    write_hash();
    update();
  }

  function read_driver() {
    const text = field.driver.value;
    if (!is_pasted(text)) return changed();
    const mistakes = new Map();
    attempt("driver", mistakes, () => take(text));
    if (!mistakes.size) return now();
    clearTimeout(timer);
    return show(mistakes, { host: { driver: null, gpus: [], architecture: "" } });
  }

  form.addEventListener("input", (event) => (event.target === field.driver ? read_driver() : changed()));
  form.addEventListener("change", (event) => (event.target === field.driver ? read_driver() : now()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(now));
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !["INPUT", "TEXTAREA"].includes(event.target.tagName)) return;
    if (event.target === field.driver) event.preventDefault();
    now();
  });
  field.gpu.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text");
    if (!text.trim().includes("\n")) return;
    event.preventDefault();
    field.driver.value = text;
    read_driver();
  });
  addEventListener("hashchange", () => {
    if (!read_hash()) return;
    update();
    by_id("choose").scrollIntoView();
  });

  form.hidden = false;
  read_hash();
  update();
  return { facts, images, machine };
})();
