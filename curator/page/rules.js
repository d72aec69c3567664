// Which image runs on a machine: curator.resolve, which is the reference, in the browser.
//
// - Functions and fields have the names they have there, and answers are the same JSON.
// - `facts` are those of `curator.page.facts_of`, images those of `read_catalogue`.
// - Tests hold both to the same answers; a change there is a change here.
const rules = (() => {
  "use strict";

  const { ValueError, compare_lists } = versions;
  const { answer, format, highest, is_least, is_less, numbers, text_of } = compat;

  // judge

  const PLATFORMS = { x86_64: "linux/amd64", aarch64: "linux/arm64" };
  const BRANDS = {
    geforce: ["geforce", "geforcertx"],
    titan: ["titan", "titanrtx"],
    workstation: ["nvidia", "nvidiartx", "quadro", "quadrortx"],
    datacenter: ["nvidia", "tesla"],
  };
  const TURING = [7, 5];
  const RENAMED = 470;

  const own = (mapping, name) => (Object.hasOwn(mapping, name) ? mapping[name] : null);
  const platform_of = (architecture) => own(PLATFORMS, architecture) ?? `linux/${architecture}`;
  const branch_of = (version) => (version ? Number(version.split(".")[0]) : null);
  const age = (test) => test.at.replace(/Z+$/, "");
  const gate = (name, found, gpu = null) => ({ gate: name, gpu, answer: found });
  const judgement = (says, gates, confidence = null, test = null) => ({
    says,
    gates,
    confidence,
    test,
  });

  const DOTTED = /^[0-9]{1,6}(\.[0-9]{1,6}){0,3}$/;
  const UNREAD = gate("G2", answer("unknown", "label-unread"));

  function is_readable(label) {
    const told = [label.cuda, label.floor, label.forward, label.glibc];
    return told.every((text) => !text || DOTTED.test(text));
  }

  class Judge {
    constructor(host, facts) {
      this.host = host;
      this.facts = facts;
      this.branch = branch_of(host.driver);
      this.sms = new Set(host.gpus.map((gpu) => gpu.sm).filter(Boolean));
      this.has_every_sm = host.gpus.length > 0 && host.gpus.every((gpu) => gpu.sm);
      [this.speaks, this.is_exact] = speaks_of_branch(this.branch, facts);
      this.labels = new Map();
    }

    image(image) {
      const known = this.label(image.label);
      const tests = image.tests.filter((test) => this.sms.has(test.sm));
      return tests.length ? this.with_tests(known, tests) : known;
    }

    label(label) {
      let found = this.labels.get(label);
      if (found === undefined) {
        const gates = is_readable(label) ? [...this.gates(label)] : [UNREAD];
        const says = folded(gates);
        found = judgement(says, gates, says === "yes" ? "rule" : null);
        this.labels.set(label, found);
      }
      return found;
    }

    with_tests(known, tests) {
      const latest = new Map();
      for (const test of sorted_by(tests, age)) {
        latest.set(`${test.sm} ${branch_of(test.driver)}`, test);
      }
      const here = [...this.sms].sort().map((sm) => latest.get(`${sm} ${this.branch ?? 0}`));
      const failed = here.find((test) => test?.verdict === "fail");
      if (failed) {
        return judgement("no", [...known.gates, gate("E", told(failed, "no"))], null, failed);
      }
      const passed = here.filter(Boolean);
      if (this.has_every_sm && passed.length === this.sms.size) {
        const test = newest_of(passed);
        const gates = [...known.gates, gate("E", told(test, "yes"))];
        const says = folded(known.gates.filter((one) => ["G0", "G1"].includes(one.gate)));
        return judgement(says, gates, says === "yes" ? "tested" : null, test);
      }
      const good = [...latest.values()].filter((test) => test.verdict === "pass");
      const sms = new Set(good.map((test) => test.sm));
      const all_good = [...this.sms].every((sm) => sms.has(sm));
      if (known.says === "yes" && this.has_every_sm && all_good) {
        return judgement("yes", known.gates, "tested-sm", newest_of(good));
      }
      return known;
    }

    *gates(label) {
      const { host } = this;
      const place = platform_of(host.architecture);
      yield gate("G0", compat.platform(label.platforms ?? ["linux/amd64"], place));
      if (label.glibc && host.docker) yield gate("G0", compat.threads(label.glibc, host.docker));
      if (host.driver === null && !host.gpus.length) {
        yield gate("G2", answer("no", "gpu-none", [["floor", label.floor]]));
        return;
      }
      yield gate("G1", this.runtime(label));
      const found = this.driver(label);
      yield gate("G2", found);
      if (!host.gpus.length) yield gate("G3", answer("unknown", "gpu-not-given"));
      const speaks = this.speaks_for(label, found);
      const branches = this.branches(label, found);
      for (const [number, gpu] of host.gpus.entries()) {
        yield* this.gpu(label, gpu, number, speaks, branches);
      }
    }

    runtime(label) {
      const requires = label.requires ?? null;
      if (requires === null) return answer("unknown", "runtime-unread");
      const version = this.host.driver;
      const gpus = this.host.gpus.length ? this.host.gpus : [{ name: null, sm: null, kind: null }];
      const answers = gpus.map((gpu) => compat.runtime(requires, {
        cuda: this.cuda(),
        driver: version === null ? null : (version.includes(".") ? compat.exactly : compat.within)(version),
        arch: gpu.sm,
        brands: brands_of(gpu, this.branch),
      }));
      const worst = ["no", "unknown", "yes"].find((says) => answers.some((one) => one.says === says));
      return answers.find((one) => one.says === worst);
    }

    cuda() {
      if (this.speaks === null) return null;
      return this.is_exact ? compat.exactly(this.speaks) : compat.at_least(this.speaks);
    }

    driver(label) {
      const { host, branch } = this;
      if (host.driver === null || branch === null) {
        return answer("unknown", "driver-none", [["floor", label.floor]]);
      }
      const found = compat.driver(label.cuda, host.driver, label.floor, this.speaks_of(label.cuda));
      const package_ = label.forward ?? null;
      if (package_ && this.is_older_than(package_)) {
        const kinds = host.gpus.map((gpu) => gpu.kind);
        const takes = own(this.facts.forward, package_);
        return compat.forward(package_, branch, kinds, takes, found.says === "yes");
      }
      return found;
    }

    is_older_than(cuda) {
      if (this.speaks === null) return true;
      return this.is_exact && is_less(numbers(this.speaks), numbers(cuda).slice(0, 2));
    }

    speaks_of(cuda) {
      const { speaks } = this;
      if (speaks === null || this.is_exact || numbers(speaks)[0] >= numbers(cuda)[0]) {
        return speaks;
      }
      return null;
    }

    speaks_for(label, found) {
      if (found.rule === "driver-forward" && found.says === "yes") return label.forward;
      if (this.speaks === null || this.is_exact) return this.speaks;
      const enough = is_least(numbers(this.speaks), numbers(label.cuda).slice(0, 2));
      return enough ? this.speaks : null;
    }

    branches(label, found) {
      const known = this.branch === null ? [] : [this.branch];
      if (found.rule !== "driver-forward" || found.says !== "yes") return known;
      const numbers_of = Object.entries(this.facts.branches)
        .filter(([, one]) => one.cuda === label.forward)
        .map(([number]) => Number(number));
      return numbers_of.length ? [...known, Math.min(...numbers_of)] : known;
    }

    *gpu(label, gpu, place, speaks, branches) {
      if (gpu.sm === null) {
        yield gate("G3", answer("unknown", "gpu-not-given"), place);
        return;
      }
      const facts = own(this.facts.capabilities, gpu.sm);
      if (facts === null) {
        yield gate("G2", answer("unknown", "gpu-unknown", [["gpu", gpu.sm]]), place);
      } else {
        for (const branch of branches) {
          const { first_driver: first, last_driver: last } = facts;
          yield gate("G2", compat.knows(branch, gpu.sm, first, last), place);
        }
        yield gate("G3", compat.supported(gpu.sm, label.cuda, facts.last_cuda), place);
      }
      const cubin = label.cubin ?? null;
      if (cubin === null) {
        yield gate("G3", answer("unknown", "kernel-unread"), place);
        return;
      }
      const found = compat.kernel(gpu.sm, cubin, label.ptx ?? []);
      yield gate("G3", found, place);
      if (found.rule !== "kernel-ptx") return;
      yield gate("G3", this.ptx(label.cuda, speaks), place);
      if (facts !== null && is_less(numbers(label.cuda).slice(0, 2), numbers(facts.first_cuda))) {
        const compared = [["gpu", gpu.sm], ["cuda", label.cuda], ["first_cuda", facts.first_cuda]];
        yield gate("G3", answer("unknown", "gpu-newer", compared), place);
      }
    }

    ptx(cuda, speaks) {
      const release = cuda.split(".").slice(0, 2).join(".");
      const found = {};
      for (const one of Object.values(this.facts.branches)) found[one.cuda] = one.ptx;
      const [made, accepts] = [own(found, release), own(found, speaks ?? "")];
      return compat.accepts_ptx(cuda, speaks, made, accepts);
    }
  }

  function speaks_of_branch(branch, facts) {
    if (branch === null) return [null, false];
    const known = own(facts.branches, String(branch));
    if (known) return [known.cuda, true];
    const below = Object.keys(facts.branches).map(Number).filter((number) => number < branch);
    return below.length ? [facts.branches[Math.max(...below)].cuda, false] : [null, false];
  }

  function brands_of(gpu, branch) {
    if (gpu.kind === "datacenter" && gpu.sm) {
      if (is_less(numbers(gpu.sm), TURING)) return ["tesla"];
      if (branch !== null && branch >= RENAMED) return ["nvidia"];
    }
    return own(BRANDS, gpu.kind ?? "") ?? [];
  }

  function folded(gates) {
    const answers = new Set(gates.map((one) => one.answer.says));
    return answers.has("no") ? "no" : answers.has("unknown") ? "unknown" : "yes";
  }

  function sorted_by(items, key) {
    return [...items].sort((left, right) => {
      const [one, other] = [key(left), key(right)];
      return one < other ? -1 : one > other ? 1 : 0;
    });
  }

  function newest_of(tests) {
    return tests.reduce((best, test) => (age(test) > age(best) ? test : best));
  }

  function told(test, says) {
    const where = test.gpu || `sm ${test.sm}`;
    const compared = [["gpu", where], ["driver", test.driver], ["at", test.at.slice(0, 10)]];
    return answer(says, says === "yes" ? "test-passed" : "test-failed", compared);
  }

  const judge = (image, host, facts) => new Judge(host, facts).image(image);

  // The first gate that said no, else the first that does not know.
  function first(found) {
    for (const says of ["no", "unknown"]) {
      const one = found.gates.find((candidate) => candidate.answer.says === says);
      if (one) return one;
    }
    return null;
  }

  // resolve

  const MOST_MISSES = 3;
  const SURE = ["tested", "tested-sm", "rule", null];
  const OFFERED = ["active", "candidate", "deprecated"];

  // The images of a catalogue's document, in its order; `version_code` is the place of an image's
  // version among all versions. Many images share a label.
  function read_catalogue(document) {
    const { coded, plain, tests } = document;
    const images = Array.from({ length: document.count }, (_, place) => {
      const image = { label: document.labels[coded.label.at[place]], tests: [] };
      for (const [name, column] of Object.entries(coded)) {
        if (name !== "label") image[name] = column.values[column.at[place]];
      }
      for (const [name, column] of Object.entries(plain)) image[name] = column[place];
      const tag = image.tags.length ? `:${image.tags[0]}` : "";
      const registry = document.registry ? `${document.registry}/` : "";
      image.reference = `${registry}${image.repository}${tag}@${image.digest}`;
      image.version_code = coded.version.at[place];
      return image;
    });
    for (const [row, place] of tests.image.entries()) {
      const test = {};
      for (const [name, { values, at }] of Object.entries(tests.coded)) test[name] = values[at[row]];
      for (const [name, column] of Object.entries(tests.plain)) test[name] = column[row];
      images[place].tests.push(test);
    }
    return images;
  }

  function name_of(image) {
    const tags = image.moving.length ? image.moving : image.tags;
    return tags.length ? `${image.repository}:${tags[0]}` : image.id;
  }

  const is_offered = (image) => image.tags.length > 0 && OFFERED.includes(image.state);

  function resolve(images, host, wishes, facts) {
    const judge_here = new Judge(host, facts);
    const is_wanted = wanted(wishes);
    const places = [...images.keys()].filter((place) => is_wanted(images[place]));
    const speeds = wishes.prefer === "fastest" ? speeds_of(images, host) : new Map();
    const speed = (place) => speeds.get(place) ?? 0;
    places.sort((one, other) => speed(other) - speed(one));
    const found = { ranked: [], unknown: [], no: [] };
    for (const order of deprecated_last(images, places)) {
      for (const alike of runs(order, (place) => `${speeds.get(place)} ${images[place].version_code}`)) {
        look(alike, images, judge_here, found);
      }
    }
    const misses = nearest(newer(found.ranked, found.no), facts, MOST_MISSES);
    return {
      considered: places.length,
      ranked: found.ranked,
      unsure: found.unknown,
      rejected: found.no,
      misses,
    };
  }

  function deprecated_last(images, places) {
    const is_last = (place) => images[place].state === "deprecated";
    return [places.filter((place) => !is_last(place)), places.filter(is_last)];
  }

  // Neighbours of which a key says the same.
  function runs(places, key) {
    const found = [];
    let last = null;
    for (const place of places) {
      if (key(place) !== last) found.push([]);
      last = key(place);
      found.at(-1).push(place);
    }
    return found;
  }

  // Judge images that stand alike otherwise, and put them where they belong.
  function look(places, images, judge_here, found) {
    const good = [];
    for (const place of places) {
      const match = { image: images[place], judgement: judge_here.image(images[place]) };
      const { says, confidence } = match.judgement;
      if (says === "yes") {
        const is_stable = match.image.channel === "stable";
        good.push([[SURE.indexOf(confidence), Number(!is_stable), place], match]);
      } else {
        found[says].push(match);
      }
    }
    good.sort(([left], [right]) => compare_lists(left, right));
    found.ranked.push(...good.map(([, match]) => match));
  }

  // The highest rates measured on the host's compute capabilities, by place.
  function speeds_of(images, host) {
    const sms = new Set(host.gpus.map((gpu) => gpu.sm));
    const found = new Map();
    for (const [place, image] of images.entries()) {
      for (const { sm, verdict, speed } of image.tests) {
        if (!speed || !Object.keys(speed).length || !sms.has(sm) || verdict !== "pass") continue;
        const rates = Object.entries(speed).filter(([name]) => name.startsWith("matmul_"));
        found.set(place, Math.max(0, found.get(place) ?? 0, ...rates.map(([, rate]) => rate)));
      }
    }
    return found;
  }

  // The best of each framework, by its name: versions of two frameworks say nothing.
  function best_of(found) {
    const firsts = new Map();
    for (const match of found.ranked) {
      if (!firsts.has(match.image.framework)) firsts.set(match.image.framework, match);
    }
    return sorted_by([...firsts.values()], (match) => match.image.framework);
  }

  // What does not run; where something runs, only what is newer than that.
  function newer(ranked, rejected) {
    const best = new Map();
    for (const { image } of ranked) {
      if (!best.has(image.framework)) best.set(image.framework, image.version_code);
    }
    return rejected.filter(({ image }) => {
      const newest = best.get(image.framework);
      return newest === undefined || image.version_code < newest;
    });
  }

  function wanted(wishes) {
    const version = matcher("version", wishes.version ?? null);
    const cuda = matcher("cuda", wishes.cuda ?? null);
    const python = matcher("python", wishes.python ?? null);
    const is_any = (wish, value) => (wish ?? null) === null || wish === value;
    return (image) =>
      is_offered(image) &&
      is_any(wishes.framework, image.framework) &&
      is_any(wishes.channel, image.channel) &&
      version(image.version) &&
      cuda(image.label.cuda) &&
      python(image.python);
  }

  function matcher(name, wish) {
    if (wish === null) return () => true;
    try {
      if (/^[0-9]/.test(wish)) {
        versions.parse(wish);
        const beginning = wish.split(".");
        return (text) => {
          const parts = text.split(".");
          return beginning.every((part, place) => parts[place] === part);
        };
      }
      return versions.specifier_set(wish);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      const message = "is neither a version such as 2.9 nor a range such as >=2.6,<2.9";
      throw new ValueError(`${name} '${wish}' ${message}`);
    }
  }

  // misses

  const NO_CHECK = "NVIDIA_DISABLE_REQUIRE=1";

  function change(found, facts) {
    if (found.gates.some((one) => one.answer.says === "unknown")) return null;
    const texts_of = new Map();
    const gates = found.gates.filter((one) => one.answer.says === "no");
    for (const one of gates) {
      const parts = [...parts_of(one.answer, facts)];
      if (!parts.length) return null;
      for (const [kind, text] of parts) {
        texts_of.set(kind, [...(texts_of.get(kind) ?? []), text]);
      }
    }
    const drivers = texts_of.get("driver") ?? [];
    texts_of.delete("driver");
    const least = drivers.length ? highest(drivers, numbers) : null;
    const texts = [...texts_of.keys()].sort().flatMap((kind) => [...new Set(texts_of.get(kind))]);
    if (least) texts.unshift(`driver >= ${least}`);
    if (gates.length && gates.every((one) => one.gate === "G1")) {
      texts[texts.length - 1] += `, or ${NO_CHECK}`;
    }
    return { texts, driver: least };
  }

  function* parts_of(found, facts) {
    const compared = Object.fromEntries(found.compared);
    for (const [kind, template] of facts.rules[found.rule].change ?? []) {
      const text = format(template, compared);
      if (text === null) continue;
      yield kind === "speaks" ? speaking(text, facts) : [kind, text];
    }
  }

  function speaking(cuda, facts) {
    for (const branch of Object.keys(facts.branches).map(Number).sort((one, other) => one - other)) {
      if (is_least(numbers(facts.branches[branch].cuda), numbers(cuda).slice(0, 2))) {
        return ["driver", String(branch)];
      }
    }
    return ["cuda", `a driver that speaks CUDA ${cuda}`];
  }

  function nearest(candidates, facts, most) {
    const known = new Map();
    const found = new Map();
    for (const { image, judgement: one } of candidates) {
      if (!known.has(one)) known.set(one, change(one, facts));
      const needs = known.get(one);
      const key = needs && JSON.stringify([image.framework, needs.texts]);
      if (needs !== null && !found.has(key)) found.set(key, { image, needs });
    }
    const order = ({ needs }) => [needs.texts.length, ...numbers(needs.driver ?? "0")];
    return [...found.values()]
      .sort((left, right) => compare_lists(order(left), order(right)))
      .slice(0, most)
      .map(({ image, needs }) => ({ image, changes: needs.texts }));
  }

  // words and JSON

  const TELLING = new Set([
    "driver-floor",
    "driver-native",
    "driver-minor",
    "driver-forward",
    "kernel-cubin",
    "kernel-ptx",
    "test-passed",
  ]);

  function why(found, facts) {
    const telling = found.gates.filter((one) =>
      found.says === "yes" ? TELLING.has(one.answer.rule) : one.answer.says === found.says,
    );
    return [...new Set(telling.map((one) => text_of(one.answer, facts)))].join("; ");
  }

  function answer_json(found, facts) {
    const { says, rule, compared, loads } = found;
    return {
      says,
      rule,
      source: facts.rules[rule].source,
      ...(compared.length ? { compared: Object.fromEntries(compared) } : {}),
      ...(loads ? { loads } : {}),
    };
  }

  function judgement_json(found, facts) {
    return {
      says: found.says,
      confidence: found.confidence,
      gates: found.gates.map((one) => ({
        gate: one.gate,
        ...(one.gpu === null ? {} : { gpu: one.gpu }),
        ...answer_json(one.answer, facts),
      })),
      ...(found.test ? { test: test_json(found.test) } : {}),
    };
  }

  function test_json(test) {
    const known = Object.entries(test).filter(([name, value]) =>
      name === "speed" ? value && Object.keys(value).length : value !== null,
    );
    return Object.fromEntries(known);
  }

  function match_json({ image, judgement: found }, facts) {
    return {
      id: image.id,
      name: name_of(image),
      reference: image.reference,
      framework: image.framework,
      version: image.version,
      cuda: image.label.cuda,
      python: image.python,
      digest: image.digest,
      state: image.state,
      reason: image.reason,
      replaced_by: image.replaced_by,
      ...judgement_json(found, facts),
    };
  }

  function resolution_json(found, facts) {
    const listed = (matches) => matches.map((match) => match_json(match, facts));
    return {
      considered: found.considered,
      ranked: listed(found.ranked),
      unsure: listed(found.unsure),
      rejected: listed(found.rejected),
      misses: found.misses.map(({ image, changes }) => ({
        id: image.id,
        name: name_of(image),
        changes,
      })),
    };
  }

  return {
    Judge,
    best_of,
    change,
    first,
    is_offered,
    judge,
    judgement_json,
    name_of,
    platform_of,
    read_catalogue,
    resolution_json,
    resolve,
    text_of,
    why,
  };
})();
