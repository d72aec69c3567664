// Which image runs on a machine: curator.resolve, which is the reference, in the browser.
//
// - `judge.js` judges one image; here are the order of all, what would have to change, and JSON.
// - Functions and fields have the names they have there, and answers are the same JSON.
// - Tests hold both to the same answers; a change there is a change here.
const rules = (() => {
  "use strict";

  const { ValueError, compare_lists, is_early, quoted, squeezed } = versions;
  const { answer, format, numbers, text_of } = compat;
  const { Judge, age, branch_of, first, is_readable, judge, own, platform_of, sorted_by } = judging;

  const MOST_MISSES = 3;
  const SPEED = "matmul_fp16_gflops";
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
    const known = turns(images, wishes);
    const turn = (image) => known.get(image);
    places.sort(
      (one, other) => turn(images[one]) - turn(images[other]) || speed(other) - speed(one),
    );
    const found = { ranked: [], unknown: [], no: [] };
    const rank = (place) => [turn(images[place]), speeds.get(place), images[place].version_code];
    for (const alike of runs(places, (place) => rank(place).join(" "))) {
      look(alike, images, judge_here, found);
    }
    const misses = nearest(newer(found.ranked, found.no, turn), host, facts, MOST_MISSES);
    return {
      considered: places.length,
      ranked: found.ranked,
      unsure: found.unknown,
      rejected: found.no,
      misses,
    };
  }

  // Which images come before which, whatever else is said of them: the lower first.
  function turns(images, wishes) {
    const parts = (wishes.version ?? "").split(",");
    const is_asked = parts.some((part) => is_early(part.replace(/^[ =<>~]+/, "")));
    const early = (version) => Number(!is_asked && is_early(version));
    const turn = ({ version, state }) => early(version) + 2 * Number(state === "deprecated");
    return new Map(images.map((image) => [image, turn(image)]));
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

  // Each image's rate on the slowest of the host's compute capabilities, by place: that of the
  // newest test there, and none where that one failed.
  function speeds_of(images, host) {
    const sms = new Set(host.gpus.map((gpu) => gpu.sm));
    const found = new Map();
    for (const [place, image] of images.entries()) {
      const rates = new Map();
      for (const { sm, verdict, speed } of sorted_by(image.tests, age)) {
        if (verdict !== "pass") rates.delete(sm);
        else if (sms.has(sm) && speed && SPEED in speed) rates.set(sm, speed[SPEED]);
      }
      if (rates.size && rates.size === sms.size) found.set(place, Math.min(...rates.values()));
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

  // What does not run; where something runs, only what would go before that: a later version, and the
  // same one with a later CUDA.
  function newer(ranked, rejected, turn) {
    const best = new Map();
    const order = (image) => [turn(image), image.version_code];
    for (const { image } of ranked) {
      if (!best.has(image.framework)) best.set(image.framework, image);
    }
    return rejected.filter(({ image }) => {
      const newest = best.get(image.framework);
      if (newest === undefined) return true;
      const order_of_two = compare_lists(order(image), order(newest));
      return order_of_two < 0 || (order_of_two === 0 && has_later_cuda(image, newest));
    });
  }

  const has_later_cuda = (image, other) =>
    versions.compare(versions.parse(image.label.cuda), versions.parse(other.label.cuda)) > 0;

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

  function matcher(name, asked) {
    if (asked === null) return () => true;
    const wish = squeezed(asked);
    try {
      if (/^[0-9]/.test(wish)) {
        versions.parse(wish);
        const beginning = wish.split(".").slice(0, name === "cuda" ? 2 : undefined);
        return (text) => {
          const parts = text.split(".");
          return beginning.every((part, place) => parts[place] === part);
        };
      }
      return versions.specifier_set(wish);
    } catch (error) {
      if (!(error instanceof ValueError)) throw error;
      const message = "is neither a version such as 2.9 nor a range such as >=2.6,<2.9";
      throw new ValueError(`${name} ${quoted(wish)} ${message}`);
    }
  }

  // misses

  const OFF = "NVIDIA_DISABLE_REQUIRE";
  const NO_CHECK = `${OFF}=1`;
  const ARCHITECTURES = { "linux/amd64": "x86_64", "linux/arm64": "aarch64" };
  const EMBEDDED = new Set(["11.0"]);

  const refusals = (found) => found.gates.filter((one) => one.answer.says === "no");
  const is_runtime = (found) => refusals(found).every((one) => one.gate === "G1");

  // Looks for what would let images run on a host.
  class Changes {
    constructor(host, facts) {
      this.host = host;
      this.facts = facts;
      this.judges = new Map();
      this.firsts = host.gpus.map(({ name }) => own(facts.first_drivers, name ?? "")).filter(Boolean);
    }

    of({ label, tests }, found) {
      const host = may_help(label, found) ? this.other_hardware(label, found) : null;
      if (host === null) return null;
      const texts = this.texts(found);
      if (this.runs(host, label, tests)) return { texts, host, hardware: texts.length, driver: null };
      const [first, end] = this.drivers(host, label, tests);
      let told = first === null ? [] : [`driver >= ${first}${end === null ? "" : ` and < ${end}`}`];
      const off = { ...label, requires: { ...(label.requires ?? {}), [OFF]: "1" } };
      if (is_runtime(found) && this.runs(host, off, tests)) {
        told = [[...told, NO_CHECK].join(", or ")];
      }
      if (!told.length) return null;
      const on = first === null ? host : { ...host, driver: first };
      return { texts: [...told, ...texts], host: on, hardware: texts.length, driver: first };
    }

    runs(host, label, tests) {
      const key = JSON.stringify(host);
      if (!this.judges.has(key)) this.judges.set(key, new Judge(host, this.facts));
      return this.judges.get(key).image({ label, tests }).says === "yes";
    }

    // The newest drivers in a row that run an image: the first, and the first not to.
    drivers(host, label, tests) {
      let [first, end] = [null, null];
      for (const driver of this.known_drivers(label).reverse()) {
        if (this.runs({ ...host, driver }, label, tests)) first = driver;
        else if (first === null) end = driver;
        else break;
      }
      return first === null ? [null, null] : [first, end];
    }

    known_drivers(label) {
      const exact = [...new Set([label.floor, ...this.firsts])];
      const known = new Set(exact.map((version) => numbers(version)[0]));
      const bare = Object.keys(this.facts.branches).filter((number) => !known.has(Number(number)));
      return [...exact, ...bare].sort((one, other) => compare_lists(numbers(one), numbers(other)));
    }

    changes_of(found) {
      return this.facts.rules[found.rule].change ?? [];
    }

    // What other hardware, or engine, the rules that say no ask for.
    texts(found) {
      const kinds = new Map();
      for (const one of refusals(found)) {
        const compared = Object.fromEntries(one.answer.compared);
        for (const [kind, text] of this.changes_of(one.answer)) kinds.set(format(text, compared), kind);
      }
      return sorted_by([...kinds], ([text, kind]) => `${kind} ${text}`).map(([text]) => text);
    }

    other_hardware(label, found) {
      const host = { ...this.host, gpus: [...this.host.gpus] };
      for (const one of refusals(found)) {
        const { rule, compared } = one.answer;
        if (!this.changes_of(one.answer).length) continue;
        if (rule === "platform") {
          const [place] = label.platforms ?? ["linux/amd64"];
          host.architecture = own(ARCHITECTURES, place) ?? place.replace(/^linux\//, "");
          continue;
        }
        if (rule === "glibc-clone3") {
          host.docker = Object.fromEntries(compared).least;
          continue;
        }
        const other = this.other_gpu(label);
        if (other === null) return null;
        if (one.gpu === null) host.gpus.push(other);
        else host.gpus[one.gpu] = other;
      }
      return host;
    }

    other_gpu(label) {
      const targets = new Set([...(label.cubin ?? []), ...(label.ptx ?? [])]);
      const found = [...targets]
        .filter((sm) => !EMBEDDED.has(sm) && Object.hasOwn(this.facts.capabilities, sm))
        .sort((one, other) => compare_lists(numbers(one), numbers(other)));
      const branch = branch_of(this.host.driver);
      const facts_of = (sm) => this.facts.capabilities[sm];
      const has = (sm) =>
        (facts_of(sm).first_driver ?? branch) <= branch && branch <= (facts_of(sm).last_driver ?? branch);
      const here = branch === null ? [] : found.filter(has);
      const gpu = (sm) => ({ name: null, sm, kind: "datacenter" });
      if (here.length) return gpu(here.at(-1));
      const lasting = found.filter((sm) => (facts_of(sm).last_driver ?? null) === null);
      const left = lasting.length ? lasting : found;
      const since = (sm) => facts_of(sm).first_driver ?? 0;
      return left.length ? gpu(left.reduce((one, sm) => (since(sm) < since(one) ? sm : one))) : null;
    }
  }

  // Not against a failed test, nor where nothing was read.
  const may_help = (label, found) =>
    found.says === "no" && is_readable(label) && !refusals(found).some((one) => one.gate === "E");

  const change = (image, host, facts) =>
    new Changes(host, facts).of(image, new Judge(host, facts).image(image));

  function nearest(candidates, host, facts, most) {
    const changes = new Changes(host, facts);
    const seen = new Map();
    const found = new Map();
    for (const { image, judgement: one } of candidates) {
      if (!seen.has(image.framework)) seen.set(image.framework, new Set());
      if (seen.get(image.framework).has(one)) continue;
      seen.get(image.framework).add(one);
      const needs = changes.of(image, one);
      const key = needs && JSON.stringify([image.framework, needs.texts]);
      if (needs !== null && !found.has(key)) found.set(key, { image, needs });
    }
    const order = ({ needs }) => [needs.hardware, needs.texts.length, ...numbers(needs.driver ?? "0")];
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
    "test-old",
  ]);

  function why(found, facts) {
    const has_passed = found.gates.some((one) => one.answer.rule === "test-passed");
    let gates = found.gates.filter((one) => one.answer.says === found.says);
    if (found.says === "yes") gates = gates.filter((one) => TELLING.has(one.answer.rule));
    else if (has_passed) gates = gates.filter((one) => !["G2", "G3"].includes(one.gate));
    return [...new Set(gates.map((one) => text_of(one.answer, facts)))].join("; ");
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
