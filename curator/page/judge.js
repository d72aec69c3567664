// Whether an image runs on a machine: curator.resolve's judge, which is the reference, in the browser.
//
// - Functions and fields have the names they have there, and answers are the same JSON.
// - `facts` are those of `curator.page.facts_of`, images those of `rules.read_catalogue`.
// - Tests hold both to the same answers; a change there is a change here.
const judging = (() => {
  "use strict";

  const { answer, is_least, is_less, numbers } = compat;

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

  return { Judge, age, branch_of, first, is_readable, judge, own, platform_of, sorted_by };
})();
