// Rules of what runs where: curator.compat, which is the reference, in the browser.
//
// - Functions, rules and numbers have the names they have there.
// - Tests hold both to the same answers; a change there is a change here.
const compat = (() => {
  "use strict";

  const { ValueError, compare_lists } = versions;

  const known_numbers = new Map();

  function numbers(version) {
    let found = known_numbers.get(version);
    if (found === undefined) {
      found = version.split(".").map((part) => {
        if (!/^\s*[-+]?[0-9]+\s*$/.test(part)) throw new ValueError(`no number: ${part}`);
        return Number(part);
      });
      known_numbers.set(version, found);
    }
    return found;
  }

  const is_less = (left, right) => compare_lists(left, right) < 0;
  const is_least = (left, right) => compare_lists(left, right) >= 0;

  // Python's max(): of several that are the highest, the first.
  function highest(items, key) {
    return items.reduce((best, item) => (compare_lists(key(item), key(best)) > 0 ? item : best));
  }

  const answer = (says, rule, compared = [], loads = null) => ({ says, rule, compared, loads });

  function text_of(found, facts) {
    const told = Object.fromEntries(found.compared);
    return format(facts.rules[found.rule].says[found.says], told) ?? "";
  }

  // A template with its numbers filled in; null where it names one that was not compared.
  function format(template, told) {
    let is_whole = true;
    const text = template.replace(/\{(\w+)\}/g, (_, name) => {
      is_whole = is_whole && Object.hasOwn(told, name);
      return told[name];
    });
    return is_whole ? text : null;
  }

  const TEGRA = new Set(["3.2", "5.3", "6.2", "7.2", "8.7"]);
  const MINORS_SINCE = 11;
  const TARGET = /^([0-9]{1,3})\.([0-9])([af]?)$/;

  function kernel(gpu, cubin, ptx) {
    const own = numbers(gpu);
    const [binaries, texts] = [cubin.map(target), ptx.map(target)];
    const compared = [["gpu", gpu]];
    let fits = binaries.filter((found) => found && loads_cubin(found, own));
    if (fits.length) {
      return loaded("kernel-cubin", "sm_", highest(fits, closeness), compared);
    }
    fits = texts.filter((found) => found && compiles_ptx(found, own));
    if (fits.length) {
      return loaded("kernel-ptx", "compute_", highest(fits, closeness), compared);
    }
    const says = binaries.includes(null) || texts.includes(null) ? "unknown" : "no";
    const shipped = [...binaries, ...texts].filter(Boolean);
    if (shipped.length) {
      const [major, minor, suffix] = highest(shipped, closeness);
      compared.push(["highest", `${major}.${minor}${suffix}`]);
    }
    return answer(says, "kernel-none", compared);
  }

  function library(gpu, gap) {
    const found = kernel(gpu, gap.cubin, gap.ptx ?? []).says;
    const compared = [["gpu", gpu], ["file", gap.file]];
    return answer(found === "yes" ? "yes" : "unknown", "kernel-gap", compared);
  }

  function target(text) {
    const found = TARGET.exec(text);
    return found && [Number(found[1]), Number(found[2]), found[3]];
  }

  const closeness = ([major, minor, suffix]) => [major, minor, ["", "f", "a"].indexOf(suffix)];

  function loads_cubin([major, minor, suffix], gpu) {
    const is_tegra = [[major, minor], gpu].some((one) => TEGRA.has(one.join(".")));
    if (suffix === "a" || is_tegra) return compare_lists([major, minor], gpu) === 0;
    return major === gpu[0] && minor <= gpu[1];
  }

  function compiles_ptx(found, gpu) {
    return found[2] ? loads_cubin(found, gpu) : compare_lists(found.slice(0, 2), gpu) <= 0;
  }

  function loaded(rule, prefix, [major, minor, suffix], compared) {
    const kind = prefix === "sm_" ? "cubin" : "ptx";
    const numbered = [...compared, [kind, `${major}.${minor}${suffix}`]];
    return answer("yes", rule, numbered, `${prefix}${major}${minor}${suffix}`);
  }

  function supported(gpu, cuda, first_cuda, last_cuda, built) {
    const compared = [["gpu", gpu], ["cuda", cuda]];
    const last = last_cuda ? [["last_cuda", last_cuda]] : [];
    if (last_cuda && numbers(cuda)[0] > numbers(last_cuda)[0]) {
      return answer("no", "gpu-dropped", [...compared, ...last]);
    }
    const release = (version) => numbers(version).slice(0, 2);
    const oldest = built && is_less(release(built), release(cuda)) ? built : cuda;
    if (is_less(release(oldest), numbers(first_cuda))) {
      const told = [["gpu", gpu], ["cuda", oldest], ["first_cuda", first_cuda]];
      return answer("unknown", "gpu-newer", told);
    }
    return answer("yes", "gpu-supported", [...compared, ...last]);
  }

  function driver(cuda, version, floor, speaks) {
    const compared = [["driver", version], ["floor", floor]];
    const own = numbers(version);
    if (is_less(own, numbers(floor).slice(0, own.length))) {
      return answer("no", "driver-floor", compared);
    }
    if (speaks === null) return answer("yes", "driver-floor", compared);
    compared.push(["cuda", cuda], ["speaks", speaks]);
    if (is_least(numbers(speaks), numbers(cuda).slice(0, 2))) {
      return answer("yes", "driver-native", compared);
    }
    if (numbers(speaks)[0] === numbers(cuda)[0]) {
      return answer(numbers(cuda)[0] >= MINORS_SINCE ? "yes" : "no", "driver-minor", compared);
    }
    return answer("no", "driver-major", compared);
  }

  function accepts_ptx(cuda, speaks, made, accepts) {
    if (speaks === null) return answer("unknown", "ptx-version", [["cuda", cuda]]);
    const compared = [["cuda", cuda], ["speaks", speaks]];
    if (is_least(numbers(speaks), numbers(cuda).slice(0, 2))) {
      return answer("yes", "ptx-version", compared);
    }
    if (made === null || accepts === null) return answer("unknown", "ptx-version", compared);
    const says = is_least(numbers(accepts), numbers(made)) ? "yes" : "no";
    return answer(says, "ptx-version", [...compared, ["made", made], ["accepts", accepts]]);
  }

  function knows(branch, gpu, first, last) {
    const compared = [["branch", String(branch)], ["gpu", gpu]];
    if (first !== null && branch < first) {
      compared.push(["needs", `driver >= ${first}`], ["first", String(first)]);
      return answer("no", "gpu-driver", compared);
    }
    if (last !== null && branch > last) {
      compared.push(["needs", `branch ${last} was the last`], ["last", String(last)]);
      return answer("no", "gpu-driver", compared);
    }
    return answer("yes", "gpu-driver", compared);
  }

  function forward(package_, branch, kinds, takes, without) {
    const found = new Set(kinds);
    const all_datacenter = found.size === 1 && found.has("datacenter");
    const kind = ["geforce", "titan", "embedded"].find((name) => found.has(name)) ?? null;
    const told = kind ?? (all_datacenter ? "data-centre" : "these");
    const compared = [["forward", package_], ["branch", String(branch)], ["kind", told]];
    const is_taken = takes !== null && takes.includes(branch);
    if (kind || !(is_taken || takes === null || without)) {
      return answer("no", "driver-forward", compared);
    }
    return answer(is_taken && all_datacenter ? "yes" : "unknown", "driver-forward", compared);
  }

  function introduced(product, version, first) {
    const own = numbers(version);
    const fine = is_least(own, numbers(first).slice(0, own.length));
    const compared = [["product", product], ["driver", version], ["first", first]];
    return answer(fine ? "yes" : "unknown", "gpu-product", compared);
  }

  // Of a pair's tests those that stand: the newest of one verdict, newest first.
  function standing(tests) {
    const ordered = [...tests].sort((one, other) => compare_tests(other, one));
    const end = ordered.findIndex((test) => test.verdict !== ordered[0].verdict);
    return end < 0 ? ordered : ordered.slice(0, end);
  }

  function compare_tests(one, other) {
    const [left, right] = [test_order(one), test_order(other)];
    const place = left.findIndex((part, number) => part !== right[number]);
    return place < 0 ? 0 : left[place] < right[place] ? -1 : 1;
  }

  function test_order({ at, evidence, stale, verdict }) {
    const failed = Number(verdict !== "pass");
    const placed = stale !== "time" ? 1 : failed ? 2 : 0;
    return [placed, at.replace(/Z+$/, ""), failed, evidence ?? ""];
  }

  function platform(platforms, host) {
    const compared = [["image", platforms.join(", ")], ["host", host]];
    return answer(platforms.includes(host) ? "yes" : "no", "platform", compared);
  }

  function threads(glibc, docker) {
    const least = "20.10.10";
    const compared = [["glibc", glibc], ["docker", docker], ["least", least]];
    const fine = is_less(numbers(glibc), [2, 34]) || is_least(numbers(docker), numbers(least));
    return answer(fine ? "yes" : "no", "glibc-clone3", compared);
  }

  // The container runtime's own check

  const PREFIX = "NVIDIA_REQUIRE_";
  const CUDA = "NVIDIA_REQUIRE_CUDA";
  const OFF = "NVIDIA_DISABLE_REQUIRE";
  const JETPACK = "NVIDIA_REQUIRE_JETPACK";
  const TRUE = new Set(["1", "t", "T", "true", "TRUE", "True"]);
  const LEGACY = "CUDA_VERSION";
  const CONDITION = /^([A-Za-z]+)(>=|<=|!=|=|<|>)([^<>=!]+)$/;
  const SEMANTIC = new RegExp(
    "^v?(N)(?:\\.(N)(?:\\.N(?:-W(?:\\.W)*)?(?:\\+W(?:\\.W)*)?)?)?$"
      .replaceAll("N", "(?:0|[1-9][0-9]{0,5})")
      .replaceAll("W", "[0-9A-Za-z-]+"),
  );
  const VERSION = /^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$/;
  const PARTS = 4;

  const exactly = (version) => [padded(version, 0), padded(version, 0)];
  const within = (version) => [padded(version, 0), padded(version, Infinity)];
  const at_least = (version) => [padded(version, 0), Array(PARTS).fill(Infinity)];

  function padded(version, filler) {
    return [...numbers(version), ...Array(PARTS).fill(filler)].slice(0, PARTS);
  }

  function runtime(requires, { cuda, driver: driver_range, arch, brands }) {
    if (TRUE.has(requires[OFF] ?? "")) {
      return answer("yes", "runtime-off");
    }
    const ranges = { cuda, driver: driver_range, arch: arch ? exactly(arch) : null };
    const facts = new RuntimeFacts(ranges, brands);
    const asked = Object.entries(requires)
      .filter(([name]) => name.startsWith(PREFIX) && !name.startsWith(JETPACK))
      .sort(([left], [right]) => (left < right ? -1 : 1));
    const implied = !requires[CUDA] && Boolean(requires[LEGACY]);
    if (implied) {
      const found = SEMANTIC.exec(requires[LEGACY]);
      if (!found) return answer("unknown", "runtime-unread");
      const least = `cuda>=${found[1]}.${found[2] ?? 0}`;
      const empty = asked.find(([name]) => name === CUDA);
      if (empty) empty[1] = least;
      else asked.push([CUDA, least]);
    }
    const answers = asked.map(([name, text]) => facts.variable(text, implied && name === CUDA));
    for (const says of ["no", "unknown"]) {
      const found = answers.find((one) => one.says === says);
      if (found) return found;
    }
    if (!asked.length) return answer("yes", "runtime-none");
    const told = asked.map(([, text]) => text).join("; ");
    return answer("yes", "runtime-met", [["requires", told]]);
  }

  class RuntimeFacts {
    constructor(ranges, brands) {
      this.ranges = ranges;
      this.brands = brands;
    }

    variable(text, implied) {
      const compared = [["requires", text]];
      const met = (brand) => new RuntimeFacts(this.ranges, [brand]).variable(text, implied);
      if (this.brands.length > 1 && this.brands.every((brand) => met(brand).says === "yes")) {
        return answer("yes", "runtime-met", compared);
      }
      let worst = null;
      let unsure = false;
      for (const alternative of text.split(" ")) {
        const [says, about, condition] = this.alternative(alternative);
        if (about === "unread") return answer("unknown", "runtime-unread");
        if (says === "yes") return answer("yes", "runtime-met", compared);
        if (says === null) continue;
        unsure = unsure || says === "unknown";
        worst = worst ?? [about, condition];
      }
      if (worst === null) return answer("yes", "runtime-met", compared);
      const [about, condition] = worst;
      const rule = implied ? "runtime-implied" : `runtime-${about}`;
      const asked = condition.toLowerCase().startsWith("cuda>=")
        ? ["asks", condition.slice("cuda>=".length)]
        : ["other", condition];
      compared.push(["has", this.told(about)], asked);
      return answer(unsure ? "unknown" : "no", rule, compared);
    }

    alternative(text) {
      const found = [];
      for (const condition of text.split(",").filter(Boolean)) {
        const match = CONDITION.exec(condition);
        if (!match) return ["unknown", "unread", condition];
        const [about, sign, value] = [match[1].toLowerCase(), match[2], match[3]];
        if (about === "brand") {
          found.push([this.brand(sign, value.toLowerCase()), about, condition]);
        } else if (Object.hasOwn(this.ranges, about)) {
          if (!VERSION.test(value)) return ["unknown", "unread", condition];
          found.push([compare_range(this.ranges[about], sign, value), about, condition]);
        } else {
          found.push(["unknown", "unread", condition]);
        }
      }
      if (!found.length) return [null, "", ""];
      for (const says of ["no", "unknown"]) {
        const one = found.find(([said]) => said === says);
        if (one) return one;
      }
      return found[0];
    }

    brand(sign, value) {
      if (!["=", "!="].includes(sign) || !this.brands.length) return "unknown";
      if (!this.brands.includes(value)) return sign === "=" ? "no" : "yes";
      if (this.brands.length > 1) return "unknown";
      return sign === "=" ? "yes" : "no";
    }

    told(about) {
      if (about === "brand") return this.brands.join(" or ") || "not known";
      const known = this.ranges[about];
      if (known === null) return "not known";
      const [low, high] = known;
      const kept = low.filter((part, place) => part === high[place] || part);
      while (kept.length > 1 && !kept.at(-1)) kept.pop();
      if (about !== "driver" && kept.length === 1) kept.push(0);
      return kept.join(".");
    }
  }

  function compare_range(known, sign, value) {
    if (known === null) return "unknown";
    const [low, high] = known;
    const asked = padded(value, 0);
    const [from, to] = [compare_lists(asked, low), compare_lists(asked, high)];
    if (sign === "=" || sign === "!=") {
      if (from < 0 || to > 0) return sign === "=" ? "no" : "yes";
      if (compare_lists(low, high) !== 0) return "unknown";
      return sign === "=" ? "yes" : "no";
    }
    const always = { ">=": from <= 0, ">": from < 0, "<=": to >= 0, "<": to > 0 }[sign];
    const never = { ">=": to > 0, ">": to >= 0, "<=": from < 0, "<": from <= 0 }[sign];
    return always ? "yes" : never ? "no" : "unknown";
  }

  return {
    accepts_ptx,
    answer,
    at_least,
    driver,
    exactly,
    format,
    forward,
    highest,
    introduced,
    is_least,
    is_less,
    kernel,
    knows,
    library,
    numbers,
    platform,
    runtime,
    standing,
    supported,
    text_of,
    threads,
    within,
  };
})();
