// Which image runs on a machine: curator.resolve, which is the reference, in the browser.
//
// - Functions and fields have the names they have there, and answers are the same JSON.
// - `facts` are those of `curator.page.facts_of`, images those of `read_catalogue`.
// - Tests hold both to the same answers; a change there is a change here.
const rules = (() => {
  "use strict";

  const { ValueError, compare_lists, is_early, quoted, squeezed } = versions;
  const { answer, format, is_least, is_less, numbers, text_of } = compat;

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
  const BECAUSE = {
    probe: "its probe has changed since",
    age: "it is older than the index allows",
    time: "its time is not to be believed",
  };

  const ptx_cuda = (label) => label.built || label.cuda;

  function is_readable(label) {
    const told = [label.cuda, label.floor, ptx_cuda(label), label.forward || "0", label.glibc || "0"];
    return told.every((text) => DOTTED.test(text));
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
      return tests.length ? this.with_tests(image.label, known, tests) : known;
    }

    label(label) {
      let found = this.labels.get(label);
      if (found === undefined) {
        const gates = [...this.gates(label)];
        const says = folded(gates);
        found = judgement(says, gates, says === "yes" ? "rule" : null);
        this.labels.set(label, found);
      }
      return found;
    }

    // Which of several platforms a test ran is not told: then only failures tell something.
    with_tests(label, known, tests) {
      const is_one = (label.platforms ?? ["linux/amd64"]).length === 1;
      const runs = runs_of(tests.filter((test) => is_one || test.verdict !== "pass"));
      const own = this.branch ?? 0;
      const here = [...this.sms].sort().map((sm) => runs.find((run) => run.sm === sm && run.branch === own));
      const failed = here.find((run) => run && run.tests[0].verdict !== "pass");
      if (failed) {
        const [test] = failed.tests;
        return judged_with(known, "no", told(test, "no"), null, test);
      }
      const passed = here.map((run) => run && this.counting(run.tests)).filter(Boolean);
      if (this.has_every_sm && passed.length === this.sms.size && is_open(known)) {
        const test = newest_of(passed);
        const says = folded(known.gates.filter((one) => ["G0", "G1"].includes(one.gate)));
        return judged_with(known, says, told(test, "yes"), says === "yes" ? "tested" : null, test);
      }
      return this.from_elsewhere(known, runs);
    }

    from_elsewhere(known, runs) {
      const good = runs.map((run) => run.tests.find(is_fresh_pass)).filter(Boolean);
      const is_good =
        this.has_every_sm && [...this.sms].every((sm) => good.some((test) => test.sm === sm));
      const left = known.gates.filter((one) => !(is_good && one.answer.rule === "gpu-newer"));
      if (folded(left) !== "yes") return known;
      for (const sm of [...this.sms].sort()) {
        const test = this.doubt(runs, sm);
        if (test) return judged_with(known, "unknown", told(test, "unknown"), null, test);
      }
      if (is_good) return judgement("yes", known.gates, "tested-sm", newest_of(good));
      const old = runs.flatMap((run) => run.tests.filter((test) => test.verdict === "pass" && test.stale));
      return old.length ? judged_with(known, "yes", told_old(newest_of(old)), "rule") : known;
    }

    // The newest pass that is fresh and was made with the host's driver or an older one.
    counting(tests) {
      const driver = numbers(this.host.driver ?? "0");
      const is_old = (test) => is_least(driver, numbers(test.driver).slice(0, driver.length));
      return tests.find((test) => !test.stale && is_old(test)) ?? null;
    }

    // The failure that stands with the nearest older branch, or a newer as near.
    doubt(runs, sm) {
      const own = this.branch ?? 0;
      const of_sm = sorted_by(runs.filter((run) => run.sm === sm), (run) => run.branch);
      const near = of_sm.filter((run) => run.branch <= own).slice(-1);
      const newer = of_sm.find((run) => run.branch > own);
      if (newer && (!near.length || newer.branch - own <= own - near[0].branch)) near.push(newer);
      const tests = near.map((run) => run.tests[0]);
      return tests.find((test) => test.verdict !== "pass") ?? null;
    }

    *gates(label) {
      const { host } = this;
      const place = platform_of(host.architecture);
      yield gate("G0", compat.platform(label.platforms ?? ["linux/amd64"], place));
      if (host.docker && label.glibc && DOTTED.test(label.glibc)) {
        yield gate("G0", compat.threads(label.glibc, host.docker));
      }
      if (host.driver === null && !host.gpus.length) {
        yield gate("G2", answer("no", "gpu-none", [["floor", label.floor]]));
        return;
      }
      yield gate("G1", this.runtime(label));
      if (!is_readable(label)) {
        yield gate("G2", answer("unknown", "label-unread"));
        return;
      }
      const found = this.driver(label);
      yield gate("G2", found);
      const package_ = this.package(label, found);
      if (package_ !== null) {
        yield gate("G2", compat.driver(label.cuda, String(package_), label.floor, label.forward));
      }
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
      const enough = is_least(numbers(this.speaks), numbers(ptx_cuda(label)).slice(0, 2));
      return enough ? this.speaks : null;
    }

    branches(label, found) {
      const known = this.branch === null ? [] : [nearest_branch(this.branch, this.facts)];
      const package_ = this.package(label, found);
      return package_ === null ? known : [...known, package_];
    }

    // The branch of the driver that a forward compatibility package brings, if it works.
    package(label, found) {
      if (found.rule !== "driver-forward" || found.says !== "yes") return null;
      const numbers_of = Object.entries(this.facts.branches)
        .filter(([, one]) => one.cuda === label.forward)
        .map(([number]) => Number(number));
      return numbers_of.length ? Math.min(...numbers_of) : null;
    }

    *gpu(label, gpu, place, speaks, branches) {
      if (gpu.sm === null) {
        yield gate("G3", answer("unknown", "gpu-not-given"), place);
        return;
      }
      const found = kernel_of(label, gpu.sm);
      const built = found.rule === "kernel-ptx" ? label.built ?? null : null;
      yield* this.known(gpu, place, branches);
      yield* this.supported(label.cuda, built, gpu.sm, place);
      yield gate("G3", found, place);
      if (found.rule === "kernel-ptx") yield gate("G3", this.ptx(ptx_cuda(label), speaks), place);
      if (found.says !== "yes") return;
      for (const gap of label.gaps ?? []) yield gate("G3", compat.library(gpu.sm, gap), place);
    }

    // Whether the driver knows a GPU.
    *known({ name, sm }, place, branches) {
      const facts = own(this.facts.capabilities, sm);
      if (facts === null) {
        yield gate("G2", answer("unknown", "gpu-unknown", [["gpu", sm]]), place);
        return;
      }
      for (const branch of branches) {
        yield gate("G2", compat.knows(branch, sm, facts.first_driver, facts.last_driver), place);
      }
      const first = own(this.facts.first_drivers, name ?? "");
      if (first && this.host.driver) {
        yield gate("G2", compat.introduced(name, this.host.driver, first), place);
      }
    }

    // Whether the image's CUDA knows a GPU, and that of the PTX which the GPU needs.
    *supported(cuda, built, sm, place) {
      const facts = own(this.facts.capabilities, sm);
      if (facts === null) return;
      const { first_cuda, last_cuda } = facts;
      yield gate("G3", compat.supported(sm, cuda, first_cuda, last_cuda, built), place);
    }

    ptx(cuda, speaks) {
      const release = cuda.split(".").slice(0, 2).join(".");
      const found = {};
      for (const one of Object.values(this.facts.branches)) found[one.cuda] = one.ptx;
      const [made, accepts] = [own(found, release), own(found, speaks ?? "")];
      return compat.accepts_ptx(cuda, speaks, made, accepts);
    }
  }

  function kernel_of(label, sm) {
    const cubin = label.cubin ?? null;
    if (cubin === null) return answer("unknown", "kernel-unread");
    return compat.kernel(sm, cubin, label.ptx ?? []);
  }

  function speaks_of_branch(branch, facts) {
    if (branch === null) return [null, false];
    const known = own(facts.branches, String(nearest_branch(branch, facts)));
    return known ? [known.cuda, Object.hasOwn(facts.branches, String(branch))] : [null, false];
  }

  // The branch with facts that a driver is of: numbers on Windows run past the branch's.
  function nearest_branch(branch, facts) {
    const older = Object.keys(facts.branches).map(Number).filter((number) => number <= branch);
    return older.length ? Math.max(...older) : branch;
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

  // What stands of each compute capability and driver branch.
  function runs_of(tests) {
    const pairs = new Map();
    for (const test of tests) {
      const key = `${test.sm} ${branch_of(test.driver)}`;
      pairs.set(key, [...(pairs.get(key) ?? []), test]);
    }
    return [...pairs.values()].map((found) => ({
      sm: found[0].sm,
      branch: branch_of(found[0].driver),
      tests: compat.standing(found),
    }));
  }

  const is_fresh_pass = (test) => test.verdict === "pass" && !test.stale;

  // Whether a pass may stand above what the rules say of the driver.
  const is_open = (known) =>
    known.gates.every(({ answer: { rule, says } }) => rule !== "driver-forward" || says === "yes");

  const judged_with = (known, says, found, confidence = null, test = null) =>
    judgement(says, [...known.gates, gate("E", found)], confidence, test);

  const told = (test, says) =>
    answer(says, says === "yes" ? "test-passed" : "test-failed", where_of(test));

  const told_old = (test) =>
    answer("yes", "test-old", [...where_of(test), ["because", BECAUSE[test.stale]]]);

  const where_of = (test) =>
    [["gpu", test.gpu || `sm ${test.sm}`], ["driver", test.driver], ["at", test.at.slice(0, 10)]];

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
