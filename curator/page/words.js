// What people type and paste about a machine: curator.resolve._names and ._words in the browser.
//
// `words(facts)` returns `gpu`, `driver`, `pasted` and `architecture_of`; they throw a ValueError
// with the sentence that the command line prints.
const words = (() => {
  "use strict";

  const { ValueError, quoted, squeezed } = versions;

  const MAX_NAME = 100;
  const MAX_TEXT = 1024 * 1024;
  const MAX_GPUS = 64;

  // Names

  const CAPABILITY = /^(?:(sm|compute|cc)[ _-]?)?([0-9]{1,2})(\.?)([0-9])[af]?$/;
  const DRIVER = new RegExp(
    "^(?:nvidia)?[ -]?(?:driver)?[ -]?(?:version)?[ :=]{0,3}[rv]?" +
      "([3-9][0-9]{2}(?:\\.[0-9]{1,4}(?:\\.[0-9]{1,3})?)?)(?:-server)?(?:-open)?$",
  );
  const CUDA = /^(?:cuda)?[ -]?[0-9]{1,2}\.[0-9]{1,2}(?:\.[0-9]{1,2})?$/;

  const MEMORY = /\b[0-9]{1,3} ?g(?:i?b)?\b|\b(?:hbm|gddr)[0-9]?[ex]?\b/g;
  const FORM = new RegExp(
    "\\b(?:sxm[0-9]?|pci-?e?|nvl[0-9]*|hgx|dgx|mig|laptop|mobile|notebook|with|max-?q|design|gpu" +
      "|graphics|card|superchip)\\b",
    "g",
  );
  const SLICE = /-[0-9]{1,3}(?:-[0-9]{1,3})?[qcab][0-9]?\b/g;
  const MAKER = /\b(?:nvidia|corporation|grid)\b/g;
  const VIRTUAL = new RegExp(`${SLICE.source}|\\bgrid\\b`);
  const LINE = /^(?:geforce|quadro|tesla)/;
  const BRANDS = ["nvidia", "tesla", "geforce", "quadro", "titan", "grid", "rtx"];
  const REST = /[^a-z0-9]+/g;
  const ARM = ["GH200", "GB200", "GB300", "GB10", "T4G"];

  const key_of = (text) => text.toLowerCase().replace(MAKER, " ").replace(REST, "");
  const digits = (sm) => sm.replaceAll(".", "");
  const number = (sm) => Number(digits(sm));
  const empty = () => ({ name: null, sm: null, kind: null });
  // Texts are as long as Python counts them: letters, not halves of them.
  const is_longer = (text, most) => text.length > most && [...text].length > most;
  const cut = (text) => [...text].slice(0, MAX_NAME).join("");
  const is_brand = (text) => BRANDS.some((brand) => text.toLowerCase().startsWith(brand));
  const is_virtual = (text) => VIRTUAL.test(text.toLowerCase());

  function without_extras(text) {
    const plain = text.toLowerCase().replace(MAKER, " ");
    return [SLICE, MEMORY, FORM].reduce((left, extra) => left.replace(extra, " "), plain);
  }

  const add = (found, key, product) => {
    const there = found.get(key) ?? [];
    if (!there.includes(product)) found.set(key, [...there, product]);
  };

  // Products by the names that drivers show, brand and all.
  function shown_by(products) {
    const [whole, less] = [new Map(), new Map()];
    for (const product of products) {
      for (const name of [product.name, ...product.aliases]) {
        add(whole, key_of(name), product);
        add(less, key_of(without_extras(name)), product);
      }
    }
    return new Map([...less, ...whole]);
  }

  // Products by all that people call them: `geforcertx4090`, `rtx4090`, `4090`.
  function keys_of(shown) {
    const found = new Map(shown);
    for (const [key, products] of shown) {
      for (const product of products) {
        const bare = key.replace(LINE, "");
        const short = product.kind === "geforce" ? bare.replace(/^[rg]tx/, "") : bare;
        for (const name of [bare, short]) {
          if (!shown.has(name)) add(found, name, product);
        }
      }
    }
    return found;
  }

  class Names {
    constructor(facts) {
      this.facts = facts;
      this.products = facts.products;
      this.shown = shown_by(this.products);
      this.keys = keys_of(this.shown);
    }

    gpu(text) {
      const plain = squeezed(text);
      const found = CAPABILITY.exec(plain.toLowerCase());
      if (found && (found[1] || found[3])) return this.capability(`${Number(found[2])}.${found[4]}`);
      const meant = this.meant(plain);
      if (!meant.length) throw new ValueError(this.unknown(plain));
      if (new Set(meant.map((product) => `${product.sm} ${product.kind}`)).size > 1) {
        const names = meant.map((product) => `${product.name} (sm_${digits(product.sm)})`);
        throw new ValueError(`${quoted(plain)} is ${names.join(" or ")}: say which`);
      }
      return gpu_of(meant[0], plain);
    }

    called(name) {
      const plain = squeezed(name);
      const meant = plain.endsWith("..") ? this.beginning(plain.replace(/[. ]+$/, "")) : this.meant(plain);
      if (meant.length === 1) return gpu_of(meant[0], plain);
      const [sms, kinds] = ["sm", "kind"].map((field) => [...new Set(meant.map((one) => one[field]))]);
      const kind = kinds.length === 1 ? kinds[0] : kind_of(plain);
      return {
        name: cut(plain) || null,
        sm: sms.length === 1 ? sms[0] : null,
        kind: is_virtual(plain) ? null : kind,
      };
    }

    is_name(text) {
      return is_brand(text) && this.meant(text).length > 0;
    }

    capability(sm) {
      const every_sm = new Set([
        ...Object.keys(this.facts.capabilities),
        ...this.products.map((product) => product.sm),
      ]);
      if (every_sm.has(sm)) return { ...empty(), sm };
      const far = (other) => Math.abs(number(other) - number(sm));
      const near = [...every_sm]
        .sort((one, other) => far(one) - far(other) || number(one) - number(other))
        .slice(0, 3)
        .sort((one, other) => number(one) - number(other));
      throw new ValueError(`no GPU of compute capability ${sm} is known; near: ${near.join(", ")}`);
    }

    meant(text) {
      if (is_longer(text, MAX_NAME)) return [];
      for (const key of [key_of(text), key_of(without_extras(text))]) {
        if (key && this.keys.has(key)) return this.keys.get(key);
      }
      return [];
    }

    // Products whose names, as drivers show them, begin so.
    beginning(text) {
      if (is_longer(text, MAX_NAME)) return [];
      const [start, whole] = [key_of(text), key_of(without_extras(text))];
      if (whole !== start && this.shown.has(whole)) return this.shown.get(whole);
      if (!/[0-9]/.test(whole)) return [];
      const found = new Set();
      for (const [key, products] of this.shown) {
        if (key.startsWith(start)) for (const product of products) found.add(product);
      }
      return [...found];
    }

    unknown(text) {
      const shown = `no GPU called ${quoted(cut(text))} is known`;
      const near = is_longer(text, MAX_NAME) ? [] : get_close_matches(key_of(text), this.keys.keys());
      const names = [...new Set(near.flatMap((key) => this.keys.get(key).map((one) => one.name)))];
      const nearest = names.length ? `; near: ${names.slice(0, 3).join(", ")}` : "";
      return `${shown}${nearest}; a compute capability will do, such as sm_80 or 8.0`;
    }
  }

  function gpu_of({ name, sm, kind }, text) {
    return is_virtual(text) ? { name: cut(text), sm, kind: null } : { name, sm, kind };
  }

  function kind_of(name) {
    const plain = name.toLowerCase();
    if (plain.includes("geforce")) return "geforce";
    if (plain.includes("titan")) return "titan";
    return plain.includes("quadro") ? "workstation" : null;
  }

  function driver(text) {
    const plain = squeezed(text);
    const found = DRIVER.exec(plain.toLowerCase());
    if (found) return found[1];
    const about = CUDA.test(plain.toLowerCase())
      ? `${quoted(plain)} reads as a CUDA version, not as a driver's`
      : `no driver version: ${quoted(cut(plain))}`;
    throw new ValueError(
      `${about}; a driver is 535 or 535.104.05, as ` +
        "`nvidia-smi --query-gpu=driver_version --format=csv` prints it",
    );
  }

  function architecture_of(gpus) {
    return gpus.length && gpus.every(is_arm) ? "aarch64" : "x86_64";
  }

  function is_arm({ name, kind }) {
    const parts = (name ?? "").split(/[ -]/);
    return kind === "embedded" || parts.some((part) => ARM.includes(part));
  }

  // difflib's get_close_matches(word, possibilities, n=5, cutoff=0.5).
  function get_close_matches(word, possibilities) {
    const found = [];
    for (const text of possibilities) {
      const longest = (2 * Math.min(text.length, word.length)) / (text.length + word.length || 1);
      if (longest < 0.5) continue;
      const score = ratio(text, word);
      if (score >= 0.5) found.push([score, text]);
    }
    found.sort(([one, text], [other, that]) => other - one || (text < that ? 1 : -1));
    return found.slice(0, 5).map(([, text]) => text);
  }

  function ratio(left, right) {
    const total = left.length + right.length;
    return total ? (2 * matching(left, right)) / total : 1;
  }

  // How many letters are in matching blocks: the longest, then the longest on either side of it.
  function matching(left, right) {
    let [from, at, size] = [0, 0, 0];
    let lengths = [];
    for (let one = 0; one < left.length; one += 1) {
      const next = [];
      for (let other = 0; other < right.length; other += 1) {
        if (left[one] !== right[other]) continue;
        const length = (lengths[other - 1] ?? 0) + 1;
        next[other] = length;
        if (length > size) [from, at, size] = [one - length + 1, other - length + 1, length];
      }
      lengths = next;
    }
    if (!size) return 0;
    return (
      size +
      matching(left.slice(0, from), right.slice(0, at)) +
      matching(left.slice(from + size), right.slice(at + size))
    );
  }

  // Pasted text

  const NUMBER = /\b(?:driver|kmd) version ?: ?([3-9][0-9]{2}\.[0-9.]{1,9})/gi;
  const BUS = /^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]/;
  const LISTED = /GPU ([0-9]{1,3}): ([^()\n]{1,100}?) ?\(UUID:/g;
  const ASKED = /--query-gpu[= ]([A-Za-z0-9_.,]{1,2000})/;
  const UNIT = / ?\[[^\]]{0,20}\]$/;
  const DOTTED = /^[3-9][0-9]{2}\.[0-9]{2,3}(?:\.[0-9]{2})?$/;
  const COMPUTE = /^[0-9]{1,2}\.[0-9]$/;
  const PLACE = /^(?:[0-9]{1,2}|GPU-[0-9A-Fa-f-]{1,40})$/;
  const ABOUT = ["name", "gpu_name", "driver_version", "kmd_version", "compute_cap"];
  // eslint-disable-next-line no-control-regex
  const ESCAPE = /\x1b\[[0-9;?]{0,16}[A-Za-z]/g;
  const QUOTED = /^(?:> ?){1,8}/gm;
  const LINE_END = /\r\n|[\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;
  const STATES = ["On", "Off", "N/A", "WDDM", "TCC", "MCDM", "ERR!", "Enabled"];

  const FAILURES = [
    [
      "couldn't communicate with the nvidia driver",
      "the NVIDIA driver is not loaded: install it and reboot, or sudo modprobe nvidia",
    ],
    [
      "driver/library version mismatch",
      "the driver was updated while an older one is loaded: reboot",
    ],
    [
      "failed to initialize nvml: unknown error",
      "the container lost its GPUs: start it again, or give it /dev/nvidia* (--device)",
    ],
    ["failed to initialize nvml", "NVIDIA's management library does not start: see `dmesg`"],
    [
      "unable to determine the device handle",
      "a GPU does not answer any more (see `dmesg | grep Xid`): reboot, or reseat it",
    ],
    ["no devices were found", "nvidia-smi found no GPU that works: `dmesg | grep NVRM` says why"],
    ["not found", "there is no nvidia-smi: install the NVIDIA driver"],
    ["not recognized as", "there is no nvidia-smi: install the NVIDIA driver"],
    ["is not a valid field", "this nvidia-smi does not know a field of the query: run it without"],
  ];

  const read = (gpus = [], found = null) => ({ gpus, driver: found });

  function pasted(text, names) {
    if (is_longer(text, MAX_TEXT)) {
      throw new ValueError(`${[...text].length} characters are more than nvidia-smi prints`);
    }
    const lines = lines_of(text);
    const plain = lines.join("\n");
    const found = [
      ...list_in(plain, names),
      ...log_in(plain, names),
      ...table_in(lines, names),
      ...values_in(lines, names),
    ];
    const headers = [...plain.matchAll(NUMBER)].map(([, number]) => number.replace(/\.+$/, ""));
    const told = found.flatMap((one) => (one.driver ? [one.driver] : []));
    let number = one_driver([...headers, ...told]);
    const gpus = one_machine(found.map((one) => one.gpus).filter((one) => one.length));
    if (!gpus.length && number === null) {
      if (!DOTTED.test(plain.trim())) throw new ValueError(nothing(plain));
      number = plain.trim();
    }
    return { driver: number, gpus, architecture: architecture_of(gpus) };
  }

  function lines_of(text) {
    const plain = text.replaceAll("\ufeff", "").replace(LINE_END, "\n").replace(ESCAPE, "");
    return plain.replace(QUOTED, "").split("\n").filter(Boolean).map(squeezed);
  }

  // The driver that all numbers are of, of which some may be cut.
  function one_driver(numbers) {
    const longest = numbers.reduce((best, one) => (one.length > best.length ? one : best), "");
    for (const number of numbers) {
      if (number !== longest && !longest.startsWith(`${number}.`)) {
        throw new ValueError(
          `it is about two drivers, ${number} and ${longest}: paste what one machine says`,
        );
      }
    }
    return longest || null;
  }

  // The reading that says most of the machine that all are of.
  function one_machine(readings) {
    const known = (gpus) => gpus.filter((one) => one.sm).length;
    const is_more = (one, other) => one.length - other.length || known(one) - known(other);
    const most = readings.reduce((best, one) => (is_more(one, best) > 0 ? one : best), []);
    for (const gpus of readings) {
      if (!are_among(gpus, most)) {
        throw new ValueError(
          `it is about two machines, one with ${shown(gpus)} and one with ${shown(most)}: ` +
            "paste what one of them says",
        );
      }
    }
    return most;
  }

  function are_among(few, many) {
    const left = [...many];
    return few.every((one) => {
      const place = left.findIndex((other) => can_be_same(one, other));
      if (place >= 0) left.splice(place, 1);
      return place >= 0;
    });
  }

  // Whether nothing that is known of two GPUs is different; names may be cut.
  function can_be_same(one, other) {
    const pairs = [[one.sm, other.sm], [one.kind, other.kind]];
    if (![one.name, other.name].some((name) => (name || "..").endsWith(".."))) {
      pairs.push([one.name, other.name]);
    }
    return pairs.every(([left, right]) => left === right || left === null || right === null);
  }

  function shown(gpus) {
    const names = new Set(gpus.map((one) => one.name || one.sm || "a GPU"));
    return [...names].slice(0, 3).join(", ");
  }

  function nothing(text) {
    const said = text.toLowerCase().replaceAll("\u2019", "'");
    const failure = FAILURES.find(([pattern]) => said.includes(pattern));
    if (failure) return failure[1];
    return (
      "nothing of nvidia-smi in it: paste what `nvidia-smi` prints, or " +
      "`nvidia-smi --query-gpu=name,driver_version,compute_cap --format=csv`"
    );
  }

  // The GPUs of each machine; a place that comes again is of the next one.
  function machines(found) {
    const all = [new Map()];
    for (const [place, one] of found) {
      if (all.at(-1).has(place)) all.push(new Map());
      if (all.at(-1).size < MAX_GPUS) all.at(-1).set(place, one);
    }
    return all.map((gpus) => read([...gpus.values()]));
  }

  // The rows of the table: a number, a name and a state, then the bus that it is on.
  function table_in(lines, names) {
    const found = [];
    for (const line of lines) {
      const cells = line.split("|");
      for (let place = 0; place + 1 < cells.length; place += 1) {
        if (!BUS.test(cells[place + 1].trim())) continue;
        const [number, ...parts] = cells[place].split(" ").filter(Boolean);
        if (!parts.length || !/^[0-9]{1,3}$/.test(number)) continue;
        const has_state = STATES.includes(parts.at(-1)) && parts.length > 1;
        const name = parts.slice(0, has_state ? -1 : undefined).join(" ");
        found.push([number, unless_error(name, names)]);
      }
    }
    return machines(found);
  }

  // `nvidia-smi -L`; MIG devices are parts of the GPU above them.
  function list_in(text, names) {
    const found = [...text.matchAll(LISTED)];
    return machines(found.map(([, place, name]) => [place, unless_error(name, names)]));
  }

  // `nvidia-smi -q`: a GPU's heading, then its name, before other products' names.
  function log_in(text, names) {
    const parts = text.split("Attached GPUs");
    return parts.flatMap((part) => machines(headed(part.split("\n"), names)));
  }

  function headed(lines, names) {
    const found = [];
    let bus = "";
    for (const line of lines) {
      const [name] = line.split(":", 1);
      if (line.startsWith("GPU ") && BUS.test(line.slice(4))) {
        bus = line;
      } else if (bus && name.trim() === "Product Name") {
        found.push([bus, unless_error(line.slice(name.length + 1).trim(), names)]);
        bus = "";
      }
    }
    return found;
  }

  // `--query-gpu` with `--format=csv`: by its header, its command, or last by its look.
  function values_in(lines, names) {
    const queries = [];
    const free = [];
    for (const line of lines) {
      const row = row_of(line);
      const columns = columns_of(line, row);
      const last = queries.at(-1);
      if (columns !== null) queries.push({ columns, rows: [] });
      else if (last && row.length === last.columns.length) last.rows.push(row);
      else if (!last || last.columns.length) free.push(row);
    }
    const found = queries.map(({ columns, rows }) => rows.map((row) => told(columns, row, names)));
    found.push(free.map((row) => loose(row, names)));
    return found.flatMap(together);
  }

  // The GPUs of rows as one machine's, and each driver, which have to be the same.
  function together(rows) {
    const found = rows.filter((one) => one !== null);
    const gpus = found.flatMap((one) => one.gpus).slice(0, MAX_GPUS);
    return [read(gpus), ...found.map((one) => read([], one.driver))];
  }

  // The columns that a line announces; none of them for a query of something else.
  function columns_of(line, row) {
    const command = ASKED.exec(line);
    if (command) return command[1].toLowerCase().split(",");
    const heads = row.map((cell) => cell.replace(UNIT, "").toLowerCase());
    if (!heads.some((head) => ABOUT.includes(head))) return null;
    return heads.includes("pid") ? [] : heads;
  }

  // A line of comma-separated values, as Python's csv reads it with spaces before a value skipped.
  function row_of(line) {
    if (!line || line.includes("|") || is_longer(line, MAX_TEXT / 64)) return [];
    const cells = [""];
    let state = "start";
    for (const letter of line) {
      if (state === "quoted") {
        if (letter === '"') state = "closed";
        else cells[cells.length - 1] += letter;
      } else if (letter === ",") {
        cells.push("");
        state = "start";
      } else if (state === "start" && letter === " ") {
        continue;
      } else if (letter === '"' && state === "start") {
        state = "quoted";
      } else {
        cells[cells.length - 1] += letter;
        state = state === "closed" && letter === '"' ? "quoted" : "plain";
      }
    }
    return cells.map((cell) => cell.trim());
  }

  // What a row of a query tells; null if it is any line of text.
  function told(columns, row, names) {
    const cells = new Map(columns.map((column, place) => [column, row[place]]));
    const name = cells.get("name") ?? cells.get("gpu_name") ?? null;
    const number = cells.get("driver_version") ?? cells.get("kmd_version") ?? "";
    const sm = cells.get("compute_cap") ?? null;
    const known = DOTTED.test(number) ? number : null;
    const is_told = [name, sm].some((cell) => cell !== null && is_telling(cell));
    if (known === null && !is_told) return null;
    if (name === null && sm === null) return read([], known);
    return read([with_sm(unless_error(name ?? "", names), sm)], known);
  }

  const is_telling = (cell) => is_error(cell) || is_brand(cell) || COMPUTE.test(cell);

  // What a row tells that nothing announces; null if it is any line of text.
  function loose(row, names) {
    const name = row.find((cell) => names.is_name(cell)) ?? null;
    const sm = row.find((cell) => COMPUTE.test(cell)) ?? null;
    const known = row.find((cell) => DOTTED.test(cell)) ?? null;
    if (name === null || !(sm || known || row.some((cell) => PLACE.test(cell)))) return null;
    return read([with_sm(names.called(name), sm)], known);
  }

  // A GPU with the compute capability that its driver says.
  const with_sm = (found, sm) => (sm && COMPUTE.test(sm) ? { ...found, sm } : found);
  const is_error = (cell) => ["", "ERR!", "Unknown Error"].includes(cell) || cell.startsWith("[");
  const unless_error = (name, names) => (is_error(name) ? empty() : names.called(name));

  return (facts) => {
    const names = new Names(facts);
    return {
      architecture_of,
      driver,
      gpu: (text) => names.gpu(text),
      pasted: (text) => pasted(text, names),
    };
  };
})();
