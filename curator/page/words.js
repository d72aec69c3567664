// What people type and paste about a machine: curator.resolve._names and ._words in the browser.
//
// `words(facts)` returns `gpu`, `driver`, `pasted` and `architecture_of`; they throw a ValueError
// with the sentence that the command line prints.
const words = (() => {
  "use strict";

  const { ValueError } = versions;

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

  // Python's \b, for whole words of every language.
  const [BEGIN, END] = ["(?<![\\p{L}\\p{N}_])", "(?![\\p{L}\\p{N}_])"];
  const every = (pattern) => new RegExp(pattern, "gu");
  const MEMORY = every(
    `${BEGIN}[0-9]{1,3} ?g(?:i?b)?${END}|${BEGIN}(?:hbm|gddr)[0-9]?[ex]?${END}`,
  );
  const FORM = every(
    `${BEGIN}(?:sxm[0-9]?|pci-?e?|nvl[0-9]*|hgx|dgx|mig|laptop|mobile|notebook|with|max-?q` +
      `|design|gpu|graphics|card|superchip)${END}`,
  );
  const SLICE = every(`-[0-9]{1,3}(?:-[0-9]{1,3})?[qcab][0-9]?${END}`);
  const MAKER = every(`${BEGIN}(?:nvidia|corporation|grid)${END}`);
  const LINE = /^(?:geforce|quadro|tesla)/;
  const BRANDS = ["nvidia", "tesla", "geforce", "quadro", "titan", "grid", "rtx"];
  const REST = /[^a-z0-9]+/g;
  const GRACE = ["GH200", "GB200", "GB300", "GB10"];

  const key_of = (text) => text.toLowerCase().replace(MAKER, " ").replace(REST, "");
  const digits = (sm) => sm.replaceAll(".", "");
  const number = (sm) => Number(digits(sm));
  const empty = () => ({ name: null, sm: null, kind: null });
  const squeezed = (text) => text.trim().split(/\s+/).filter(Boolean).join(" ");

  function without_extras(text) {
    const plain = text.toLowerCase().replace(MAKER, " ");
    return [SLICE, MEMORY, FORM].reduce((left, extra) => left.replace(extra, " "), plain);
  }

  // Text as Python shows it: in quotes.
  function quoted(text) {
    const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
    const escapes = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", [mark]: `\\${mark}` };
    return mark + [...text].map((letter) => escapes[letter] ?? letter).join("") + mark;
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
      const plain = text.trim();
      const found = CAPABILITY.exec(plain.toLowerCase());
      if (found && (found[1] || found[3])) return this.capability(`${Number(found[2])}.${found[4]}`);
      const meant = this.meant(plain);
      if (!meant.length) throw new ValueError(this.unknown(plain));
      if (new Set(meant.map((product) => `${product.sm} ${product.kind}`)).size > 1) {
        const names = meant.map((product) => `${product.name} (sm_${digits(product.sm)})`);
        throw new ValueError(`${quoted(plain)} is ${names.join(" or ")}: say which`);
      }
      return gpu_of(meant[0]);
    }

    called(name) {
      const plain = squeezed(name);
      const cut = plain.endsWith("..");
      const meant = cut ? this.beginning(plain.replace(/[. ]+$/, "")) : this.meant(plain);
      if (meant.length === 1) return gpu_of(meant[0]);
      const [sms, kinds] = ["sm", "kind"].map((field) => [...new Set(meant.map((one) => one[field]))]);
      return {
        name: plain.slice(0, MAX_NAME) || null,
        sm: sms.length === 1 ? sms[0] : null,
        kind: kinds.length === 1 ? kinds[0] : kind_of(plain),
      };
    }

    is_name(text) {
      const plain = text.toLowerCase();
      return BRANDS.some((brand) => plain.startsWith(brand)) && this.meant(text).length > 0;
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
      if (text.length > MAX_NAME) return [];
      for (const key of [key_of(text), key_of(without_extras(text))]) {
        if (key && this.keys.has(key)) return this.keys.get(key);
      }
      return [];
    }

    // Products whose names, as drivers show them, begin so.
    beginning(text) {
      if (text.length > MAX_NAME) return [];
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
      const shown = `no GPU called ${quoted(text.slice(0, MAX_NAME))} is known`;
      const near = text.length <= MAX_NAME ? get_close_matches(key_of(text), this.keys.keys()) : [];
      const names = [...new Set(near.flatMap((key) => this.keys.get(key).map((one) => one.name)))];
      const nearest = names.length ? `; near: ${names.slice(0, 3).join(", ")}` : "";
      return `${shown}${nearest}; a compute capability will do, such as sm_80 or 8.0`;
    }
  }

  const gpu_of = ({ name, sm, kind }) => ({ name, sm, kind });

  function kind_of(name) {
    const plain = name.toLowerCase();
    if (plain.includes("geforce")) return "geforce";
    if (plain.includes("titan")) return "titan";
    return plain.includes("quadro") ? "workstation" : null;
  }

  function driver(text) {
    const plain = text.trim().toLowerCase();
    const found = DRIVER.exec(plain);
    if (found) return found[1];
    const about = CUDA.test(plain)
      ? `${quoted(text.trim())} reads as a CUDA version, not as a driver's`
      : `no driver version: ${quoted(text.trim().slice(0, MAX_NAME))}`;
    throw new ValueError(
      `${about}; a driver is 535 or 535.104.05, as ` +
        "`nvidia-smi --query-gpu=driver_version --format=csv` prints it",
    );
  }

  function architecture_of(gpus) {
    const arm = gpus.map((gpu) => gpu.kind === "embedded" || GRACE.includes(gpu.name));
    return gpus.length && arm.every(Boolean) ? "aarch64" : "x86_64";
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

  const NUMBER = /(?<![\p{L}\p{N}_])(?:driver|kmd) version\s*:\s*([3-9][0-9]{2}\.[0-9.]{1,9})/iu;
  const BUS = /^[0-9A-Fa-f]{4,8}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]/;
  const LISTED = /GPU ([0-9]{1,3}): ([^()\n]{1,100}?) ?\(UUID:/g;
  const ASKED = /--query-gpu[= ]([A-Za-z0-9_.,]{1,2000})/;
  const UNIT = / ?\[[^\]]{0,20}\]$/;
  const DOTTED = /^[3-9][0-9]{2}\.[0-9]{2,3}(?:\.[0-9]{2})?$/;
  const COMPUTE = /^[0-9]{1,2}\.[0-9]$/;
  const ABOUT = ["name", "gpu_name", "driver_version", "kmd_version", "compute_cap"];
  // eslint-disable-next-line no-control-regex
  const ESCAPE = /\x1b\[[0-9;?]{0,16}[A-Za-z]/g;
  const QUOTED = /^(?:> ?){1,8}/gm;
  const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/;
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

  function lines_of(text) {
    const lines = text.split(LINE_END);
    if (lines.at(-1) === "") lines.pop();
    return lines;
  }

  function pasted(text, names) {
    if (text.length > MAX_TEXT) {
      throw new ValueError(`${text.length} characters are more than nvidia-smi prints`);
    }
    const plain = text.replace(/\r\n?/g, "\n").replace(ESCAPE, "").replace(QUOTED, "");
    const lines = lines_of(plain);
    const [asked, listed] = [values_in(lines, names), list_in(plain, names)];
    const [table, query] = [table_in(lines, names), log_in(lines, names)];
    const version = NUMBER.exec(plain);
    let found = asked.driver ?? (version ? version[1].replace(/\.+$/, "") : null);
    const ways = [asked, listed, query, table].map((one) => one.gpus);
    const gpus = ways.reduce((best, one) => (one.length > best.length ? one : best));
    if (!gpus.length && found === null) {
      if (!DOTTED.test(plain.trim())) throw new ValueError(nothing(plain));
      found = plain.trim();
    }
    return { driver: found, gpus, architecture: architecture_of(gpus) };
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

  // The rows of the table: a number, a name and a state, then the bus that it is on.
  function table_in(lines, names) {
    const gpus = new Map();
    for (const line of lines) {
      const cells = line.split("|");
      for (let place = 0; place + 1 < cells.length; place += 1) {
        if (!BUS.test(cells[place + 1].trim())) continue;
        const parts = cells[place].split(/\s+/).filter(Boolean);
        if (parts.length < 2 || !/^[0-9]{1,3}$/.test(parts[0])) continue;
        const has_state = STATES.includes(parts.at(-1)) && parts.length > 2;
        const one = Number(parts[0]);
        if (gpus.has(one) || gpus.size === MAX_GPUS) return read([...gpus.values()]);
        gpus.set(one, unless_error(parts.slice(1, has_state ? -1 : undefined).join(" "), names));
      }
    }
    return read([...gpus.values()]);
  }

  // `nvidia-smi -L`; MIG devices are parts of the GPU above them.
  function list_in(text, names) {
    const gpus = new Map();
    for (const [, place, name] of text.matchAll(LISTED)) {
      if (gpus.has(Number(place)) || gpus.size === MAX_GPUS) break;
      gpus.set(Number(place), unless_error(name, names));
    }
    return read([...gpus.values()]);
  }

  // `nvidia-smi -q`: a GPU's heading, then its name, before other products' names.
  function log_in(lines, names) {
    const gpus = [];
    let begun = false;
    for (const line of lines) {
      const [name] = line.split(":", 1);
      if (line.startsWith("GPU ") && BUS.test(line.slice(4).trim())) {
        begun = true;
      } else if (begun && name.trim() === "Product Name" && gpus.length < MAX_GPUS) {
        gpus.push(unless_error(line.slice(name.length + 1).trim(), names));
        begun = false;
      }
    }
    return read(gpus);
  }

  // `--query-gpu` with `--format=csv`: by its header, its command, or by its look.
  function values_in(lines, names) {
    let columns = null;
    const gpus = [];
    const numbers = [];
    for (const line of lines) {
      const command = ASKED.exec(line);
      if (command) {
        columns = command[1].toLowerCase().split(",");
        continue;
      }
      const row = row_of(line);
      const heads = row.map((cell) => cell.replace(UNIT, "").toLowerCase());
      if (heads.some((head) => ABOUT.includes(head))) {
        columns = heads.includes("pid") ? [] : heads;
        continue;
      }
      const found = columns?.length === 0 ? null : told(columns, row, names);
      if (found !== null && gpus.length < MAX_GPUS) {
        gpus.push(...found.gpus);
        if (found.driver) numbers.push(found.driver);
      }
    }
    return read(gpus, numbers[0] ?? null);
  }

  // A line of comma-separated values, as Python's csv reads it with spaces before a value skipped.
  function row_of(line) {
    if (!line || line.includes("|") || line.length > MAX_TEXT / 64) return [];
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

  function told(columns, row, names) {
    let name;
    let sm;
    let known;
    if (columns !== null && columns.length === row.length) {
      const cells = new Map(columns.map((column, place) => [column, row[place]]));
      name = cells.get("name") ?? cells.get("gpu_name") ?? null;
      const version = cells.get("driver_version") || cells.get("kmd_version");
      sm = cells.get("compute_cap") ?? null;
      known = version && DOTTED.test(version) ? version : null;
      if (name === null && sm === null) return known ? read([], known) : null;
    } else {
      name = row.find((cell) => names.is_name(cell)) ?? null;
      sm = row.find((cell) => COMPUTE.test(cell)) ?? null;
      known = row.find((cell) => DOTTED.test(cell)) ?? null;
      if (name === null || row.length < 2) return null;
    }
    const found = unless_error(name ?? "", names);
    return read([sm && COMPUTE.test(sm) ? { ...found, sm } : found], known);
  }

  function unless_error(name, names) {
    const is_error = ["", "ERR!", "Unknown Error", "[Unknown Error]"].includes(name);
    return is_error ? empty() : names.called(name);
  }

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
