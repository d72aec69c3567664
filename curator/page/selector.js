// "Which tag works on my machine?": reads the form or the address, asks the rules, shows the answer.
//
// - The address (`#driver=535&gpu=A100&framework=pytorch`) and the form always say the same; what
//   cannot be read is in no address.
// - Without a driver or without a GPU nothing is known to run: then the other one is asked for.
const selector = (() => {
  "use strict";

  const { ValueError } = versions;
  const WISHES = ["framework", "version", "cuda", "python", "channel", "prefer"];
  const FIELDS = ["driver", "gpu", ...WISHES, "arch"];
  const TOLD = ["driver", "gpu", "version", "cuda", "python"];
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
  const { described, element, parts, summary } = answers(facts, form.dataset.run);

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

  const is_pasted = (text) => /[|,\n]/.test(text.trim()) || text.trim().length > LONGEST_DRIVER;
  const gpus_of = (text) => text.split(",").filter((name) => name.trim()).map(machine.gpu);

  const driver_of = (text) => (is_pasted(text) ? machine.pasted(text).driver : machine.driver(text));

  function asked(mistakes) {
    const value = Object.fromEntries(FIELDS.map((name) => [name, field[name].value.trim()]));
    const driver = attempt("driver", mistakes, () => value.driver && driver_of(value.driver));
    const gpus = attempt("gpu", mistakes, () => gpus_of(value.gpu)) ?? [];
    const host = {
      driver: driver || null,
      gpus,
      architecture: value.arch || machine.architecture_of(gpus),
      docker: null,
    };
    const wishes = Object.fromEntries(WISHES.map((name) => [name, value[name] || null]));
    for (const [name, wish] of Object.entries(wishes)) {
      attempt(name, mistakes, () => rules.resolve([], host, { [name]: wish }, facts));
    }
    return { host, wishes };
  }

  // What can be typed for a GPU that was pasted: its name, if that is read as the same GPU again.
  function typed({ name, sm, kind }) {
    const found = name?.includes(",") ? null : attempt("gpu", new Map(), () => machine.gpu(name ?? ""));
    if (found && found.sm === sm && found.kind === kind) return name;
    return sm === null ? name ?? "?" : `sm_${sm.replaceAll(".", "")}`;
  }

  // Put what nvidia-smi printed into the fields; GPUs that were there before do not stay.
  function take(text, driver = "") {
    const host = machine.pasted(text);
    field.driver.value = host.driver ?? driver;
    field.gpu.value = host.gpus.map(typed).join(", ");
  }

  // What is shown

  // What each cell of the grid comes to on the host: the best of its images.
  function mark(host) {
    const judge = host && new rules.Judge(host, facts);
    const says = new Map();
    for (const image of judge ? images.filter(rules.is_offered) : []) {
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
    by_id("grid-host").hidden = !host;
    by_id("grid-host").textContent = host ? `Marked for ${described(host)}.` : "";
  }

  function show_mistakes(mistakes) {
    for (const name of TOLD) {
      const text = by_id(`${name}-error`);
      text.hidden = !mistakes.has(name);
      text.textContent = mistakes.get(name) ?? "";
      if (mistakes.has(name)) field[name].setAttribute("aria-invalid", "true");
      else field[name].removeAttribute("aria-invalid");
    }
  }

  // What is missing of a machine, if something of it is there.
  function missing(host) {
    if (host.driver && !host.gpus.length) return "Name the GPU too: what runs depends on both.";
    if (host.gpus.length && !host.driver) return "Name the driver too: what runs depends on both.";
    return "";
  }

  // Show the answer to a question, or the mistakes in it; the mistakes stand at their fields, and
  // are told once more to those who do not see where.
  function show(mistakes, { host, wishes }) {
    const is_whole = !mistakes.size && host.driver !== null && host.gpus.length > 0;
    const found = is_whole ? rules.resolve(images, host, wishes, facts) : null;
    const best = found ? rules.best_of(found) : [];
    const told = mistakes.size ? [...mistakes.values()].join(" ") : missing(host);
    const text = found ? summary(found, best, host) : told;
    show_mistakes(mistakes);
    mark(is_whole ? host : null);
    by_id("examples").hidden = Boolean(text);
    by_id("summary").textContent = text;
    by_id("summary").classList.toggle("hidden", mistakes.size > 0);
    by_id("answer").replaceChildren(...(found ? parts(found, best, host, address) : []));
  }

  function update() {
    const mistakes = new Map();
    show(mistakes, asked(mistakes));
  }

  // The address

  // The address of what the form asks, with some fields changed; nothing for an empty form.
  function address(changes = {}) {
    const found = new URLSearchParams();
    for (const name of FIELDS) {
      const value = changes[name] ?? field[name].value.trim();
      if (value && !(name === "driver" && is_pasted(value))) found.set(name, value);
    }
    const text = found.toString().replaceAll("%2C", ",");
    return text && `#${text}`;
  }

  const write_hash = () =>
    history.replaceState(null, "", address() || location.pathname + location.search);

  function read_hash() {
    const found = new URLSearchParams(location.hash.slice(1));
    const is_question = [...found.keys()].some((name) => FIELDS.includes(name));
    if (!is_question && location.hash) return false;
    for (const name of FIELDS) {
      const values = found.getAll(name).map((value) => value.trim()).filter(Boolean);
      field[name].value = values.join(", ");
      if (field[name].selectedIndex === -1) add_option(field[name], values[0]);
    }
    if (is_pasted(field.driver.value)) attempt("driver", new Map(), () => take(field.driver.value));
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
    if (!is_pasted(field.driver.value)) return changed();
    attempt("driver", new Map(), () => take(field.driver.value));
    return now();
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
    const mistakes = new Map();
    attempt("gpu", mistakes, () => take(text, field.driver.value));
    if (mistakes.size) field.driver.value = text; // the box for pasting, where it is explained
    now();
  });
  // A link within the page moves there, and leaves the question in the address.
  addEventListener("hashchange", () => {
    if (!read_hash()) return write_hash();
    update();
    if (location.hash) by_id("choose").scrollIntoView();
  });

  form.hidden = false;
  read_hash();
  update();
  return { facts, images, machine };
})();
