"""Whether an image runs on a host: gate by gate, then what tests say.

- G0: the CPU's architecture, and the C library under the engine.
- G1: the container runtime's check of `NVIDIA_REQUIRE_*`.
- G2: the driver: floor of the CUDA family, forward compatibility, whether it knows the GPU.
- G3: the kernels, for each GPU: a cubin, or PTX that the driver compiles; what CUDA dropped; code
  in the libraries that the framework needs.
- E: tests of this very image on each of the host's compute capabilities.

The answer is no if a gate says no, else unknown if one does not know, else yes. Of tests those
count that stand (`curator.compat.standing`):

- A failure with the host's driver branch stands above everything. One with another branch makes a
  yes unknown: the nearest older one with a test, or the nearest newer one if it is no further away.
- A pass that is not stale, with the host's driver branch and no newer driver, stands above G2 and
  G3, but not above what forward compatibility is said not to do.
- Another such pass on the compute capability stands above `gpu-newer` alone.
- Of an image for several platforms nothing tells which one a test ran: then only failures count.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from curator import compat
from curator.compat import Answer, at_least, exactly, numbers, within
from curator.resolve._host import brands_of, nearest_branch, speaks_of_branch
from curator.resolve._values import Gate, Gpu, Judgement, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from curator.compat import Numbers, Range, Says
    from curator.facts import Facts
    from curator.resolve._values import Confidence, Host, Label, Tested

PLATFORMS: Final[Mapping[str, str]] = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}
BECAUSE: Final[Mapping[str, str]] = {
    "probe": "its probe has changed since",
    "age": "it is older than the index allows",
    "time": "its time is not to be believed",
}
_DOTTED: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6}){0,3}")


def platform_of(architecture: str) -> str:
    """Return the platform of what `uname -m` says."""
    return PLATFORMS.get(architecture, f"linux/{architecture}")


class Judge:
    """Judges images for one host; what images have in common is judged once."""

    def __init__(self, host: Host, facts: Facts) -> None:
        self._host, self._facts = host, facts
        self._sms = frozenset(gpu.sm for gpu in host.gpus if gpu.sm)
        self._has_every_sm = bool(host.gpus) and all(gpu.sm for gpu in host.gpus)
        self._speaks, self._is_exact = speaks_of_branch(host.branch, facts)
        # By identity, which is quick: images share their labels, and the label is kept beside.
        self._labels: dict[int, tuple[Label, Judgement]] = {}
        self._asked: dict[tuple[tuple[str, str], ...], Answer] = {}

    def __call__(self, label: Label, tests: Sequence[Tested]) -> Judgement:
        """Return whether an image of this label and these tests runs here."""
        known = self.label(label)
        found = [test for test in tests if test.sm in self._sms]
        return self._with_tests(label, known, found) if found else known

    def label(self, label: Label) -> Judgement:
        """Return what the rules alone say."""
        known = self._labels.get(id(label))
        if known is not None:
            return known[1]
        gates = tuple(self._gates(label))
        says = _folded(gates)
        confidence: Confidence | None = "rule" if says == "yes" else None
        found = Judgement(says=says, gates=gates, confidence=confidence)
        self._labels[id(label)] = label, found
        return found

    def _with_tests(self, label: Label, known: Judgement, tests: list[Tested]) -> Judgement:
        # Which of several platforms a test ran is not told: then only failures tell something.
        told = [test for test in tests if len(label.platforms) == 1 or not test.passed]
        standing, branch = runs(told), self._host.branch or 0
        here = [standing.get((sm, branch), ()) for sm in sorted(self._sms)]
        for run in here:
            if run and not run[0].passed:
                return _with(known, "no", _told(run[0], "no"), test=run[0])
        passed = [test for test in map(self._counting, here) if test is not None]
        if self._has_every_sm and len(passed) == len(self._sms) and _is_open(known):
            test = max(passed, key=lambda test: test.age)
            says = _folded(gate for gate in known.gates if gate.gate in {"G0", "G1"})
            confidence: Confidence | None = "tested" if says == "yes" else None
            return _with(known, says, _told(test, "yes"), confidence=confidence, test=test)
        return self._from_elsewhere(known, standing)

    def _from_elsewhere(
        self, known: Judgement, standing: Mapping[tuple[str, int], Sequence[Tested]]
    ) -> Judgement:
        """Return what tests with other drivers on the same compute capabilities add."""
        good = [
            test
            for run in standing.values()
            if (test := next((one for one in run if one.passed and not one.stale), None))
        ]
        is_good = self._has_every_sm and {test.sm for test in good} >= self._sms
        left = (gate for gate in known.gates if not (is_good and gate.answer.rule == "gpu-newer"))
        if _folded(left) != "yes":
            return known
        for sm in sorted(self._sms):
            if failed := self._doubt(standing, sm):
                return _with(known, "unknown", _told(failed, "unknown"), test=failed)
        if is_good:
            test = max(good, key=lambda test: test.age)
            return Judgement(says="yes", gates=known.gates, confidence="tested-sm", test=test)
        old = [test for run in standing.values() for test in run if test.passed and test.stale]
        if not old:
            return known
        test = max(old, key=lambda test: test.age)
        return _with(known, "yes", _told_old(test), confidence="rule")

    def _counting(self, run: Sequence[Tested]) -> Tested | None:
        """Return the newest pass that is fresh and was made with the host's driver or an older."""
        driver = numbers(self._host.driver or "0")
        return next(
            (
                test
                for test in run
                if not test.stale and numbers(test.driver)[: len(driver)] <= driver
            ),
            None,
        )

    def _doubt(
        self, standing: Mapping[tuple[str, int], Sequence[Tested]], sm: str
    ) -> Tested | None:
        """Return the failure that stands with the nearest older branch, or a newer as near."""
        own = self._host.branch or 0
        branches = sorted(branch for known, branch in standing if known == sm)
        near = [branch for branch in branches if branch <= own][-1:]
        newer = next((branch for branch in branches if branch > own), None)
        if newer is not None and (not near or newer - own <= own - near[0]):
            near.append(newer)
        tests = (standing[sm, branch][0] for branch in near)
        return next((test for test in tests if not test.passed), None)

    def _gates(self, label: Label) -> Iterator[Gate]:
        host = self._host
        place = platform_of(host.architecture)
        yield Gate(gate="G0", answer=compat.platform(label.platforms, place))
        if host.docker and label.glibc and _DOTTED.fullmatch(label.glibc):
            yield Gate(gate="G0", answer=compat.threads(label.glibc, host.docker))
        if host.driver is None and not host.gpus:
            compared = (("floor", label.floor),)
            yield Gate(gate="G2", answer=Answer(says="no", rule="gpu-none", compared=compared))
            return
        yield Gate(gate="G1", answer=self._runtime(label))
        if not is_readable(label):
            yield Gate(gate="G2", answer=Answer(says="unknown", rule="label-unread"))
            return
        driver = self._driver(label)
        yield Gate(gate="G2", answer=driver)
        if (package := self._package(label, driver)) is not None:
            found = compat.driver(label.cuda, str(package), floor=label.floor, speaks=label.forward)
            yield Gate(gate="G2", answer=found)
        if not host.gpus:
            yield Gate(gate="G3", answer=Answer(says="unknown", rule="gpu-not-given"))
        speaks = self._speaks_for(label, driver)
        branches = self._branches(label, driver)
        for place_of, gpu in enumerate(host.gpus):
            yield from self._gpu(label, gpu, place_of, speaks, branches)

    def _runtime(self, label: Label) -> Answer:
        if label.requires is None:
            return Answer(says="unknown", rule="runtime-unread")
        asked = tuple(sorted(label.requires.items()))
        if asked not in self._asked:
            self._asked[asked] = self._started(label.requires)
        return self._asked[asked]

    def _started(self, requires: Mapping[str, str]) -> Answer:
        driver = self._host.driver
        answers = [
            compat.runtime(
                requires,
                cuda=self._cuda(),
                driver=None if driver is None else (exactly if "." in driver else within)(driver),
                arch=gpu.sm,
                brands=brands_of(gpu, self._host.branch),
            )
            for gpu in self._host.gpus or (Gpu(),)
        ]
        return min(answers, key=lambda answer: ("no", "unknown", "yes").index(answer.says))

    def _cuda(self) -> Range | None:
        if self._speaks is None:
            return None
        return exactly(self._speaks) if self._is_exact else at_least(self._speaks)

    def _driver(self, label: Label) -> Answer:
        driver, branch = self._host.driver, self._host.branch
        if driver is None or branch is None:
            compared = (("floor", label.floor),)
            return Answer(says="unknown", rule="driver-none", compared=compared)
        found = compat.driver(
            label.cuda, driver, floor=label.floor, speaks=self._speaks_of(label.cuda)
        )
        package = label.forward
        if package and self._is_older_than(package):
            takes = self._facts.forward.get(package)
            return compat.forward(
                package,
                branch,
                (gpu.kind for gpu in self._host.gpus),
                takes=takes.branches if takes else None,
                without=found.says == "yes",
            )
        return found

    def _is_older_than(self, cuda: str) -> bool:
        """Whether the driver's own CUDA is older than a release, as far as is known."""
        if self._speaks is None:
            return True
        return self._is_exact and numbers(self._speaks) < numbers(cuda)[:2]

    def _speaks_of(self, cuda: str) -> str | None:
        """Return the CUDA release that the driver speaks, unless that is a bound that says less."""
        speaks = self._speaks
        if speaks is None or self._is_exact or numbers(speaks)[0] >= numbers(cuda)[0]:
            return speaks
        return None

    def _speaks_for(self, label: Label, driver: Answer) -> str | None:
        """Return the CUDA release whose PTX the driver compiles, that of a package included."""
        if driver.rule == "driver-forward" and driver.says == "yes":
            return label.forward
        if self._speaks is None or self._is_exact:
            return self._speaks
        return self._speaks if numbers(self._speaks) >= numbers(label.ptx_cuda)[:2] else None

    def _branches(self, label: Label, driver: Answer) -> tuple[int, ...]:
        """Return the branches that have to know the GPUs: the host's, and that of a package."""
        own = () if self._host.branch is None else (nearest_branch(self._host.branch, self._facts),)
        package = self._package(label, driver)
        return own if package is None else (*own, package)

    def _package(self, label: Label, driver: Answer) -> int | None:
        """Return the branch of the driver that a forward compatibility package brings, if it works.

        With it the rules for the driver are asked again: a package may be older than the image.
        """
        if driver.rule != "driver-forward" or driver.says != "yes":
            return None
        known = self._facts.branches.values()
        return min((one.number for one in known if one.cuda == label.forward), default=None)

    def _gpu(
        self,
        label: Label,
        gpu: Gpu,
        place: int,
        speaks: str | None,
        branches: Sequence[int],
    ) -> Iterator[Gate]:
        if gpu.sm is None:
            yield Gate(gate="G3", answer=Answer(says="unknown", rule="gpu-not-given"), gpu=place)
            return
        kernel = _kernel(label, gpu.sm)
        built = label.built if kernel.rule == "kernel-ptx" else None
        yield from self._known(gpu, gpu.sm, place, branches)
        yield from self._supported(label.cuda, built, gpu.sm, place)
        yield Gate(gate="G3", answer=kernel, gpu=place)
        if kernel.rule == "kernel-ptx":
            yield Gate(gate="G3", answer=self._ptx(label.ptx_cuda, speaks), gpu=place)
        for gap in label.gaps if kernel.says == "yes" else ():
            yield Gate(gate="G3", answer=compat.library(gpu.sm, gap), gpu=place)

    def _known(self, gpu: Gpu, sm: str, place: int, branches: Sequence[int]) -> Iterator[Gate]:
        """Yield whether the driver knows a GPU."""
        facts = self._facts.capabilities.get(sm)
        if facts is None:
            answer = Answer(says="unknown", rule="gpu-unknown", compared=(("gpu", sm),))
            yield Gate(gate="G2", answer=answer, gpu=place)
            return
        for branch in branches:
            first, last = facts.first_driver, facts.last_driver
            answer = compat.knows(branch, sm, first=first, last=last)
            yield Gate(gate="G2", answer=answer, gpu=place)
        product = self._facts.products.get(gpu.name or "")
        if product and product.first_driver and self._host.driver:
            own, first_driver = self._host.driver, product.first_driver
            answer = compat.introduced(product.name, own, first=first_driver)
            yield Gate(gate="G2", answer=answer, gpu=place)

    def _supported(self, cuda: str, built: str | None, sm: str, place: int) -> Iterator[Gate]:
        """Yield whether the image's CUDA knows a GPU, and that of the PTX which the GPU needs."""
        if facts := self._facts.capabilities.get(sm):
            first_cuda, last_cuda = facts.first_cuda, facts.last_cuda
            answer = compat.supported(
                sm, cuda, first_cuda=first_cuda, last_cuda=last_cuda, built=built
            )
            yield Gate(gate="G3", answer=answer, gpu=place)

    def _ptx(self, cuda: str, speaks: str | None) -> Answer:
        release = ".".join(cuda.split(".")[:2])
        versions = {found.cuda: found.ptx for found in self._facts.branches.values()}
        made, accepts = versions.get(release), versions.get(speaks or "")
        return compat.accepts_ptx(cuda, speaks=speaks, made=made, accepts=accepts)


def _kernel(label: Label, sm: str) -> Answer:
    """Return which of an image's kernels a GPU loads."""
    if label.cubin is None:
        return Answer(says="unknown", rule="kernel-unread")
    return compat.kernel(sm, cubin=label.cubin, ptx=label.ptx)


def is_readable(label: Label) -> bool:
    """Say whether the versions in a label are numbers that rules can compare."""
    told = (label.cuda, label.floor, label.ptx_cuda, label.forward or "0", label.glibc or "0")
    return all(_DOTTED.fullmatch(text) for text in told)


def _folded(gates: Iterable[Gate]) -> Says:
    answers = {gate.answer.says for gate in gates}
    return "no" if "no" in answers else "unknown" if "unknown" in answers else "yes"


def _is_open(known: Judgement) -> bool:
    """Whether a pass may stand above what the rules say of the driver.

    Forward compatibility depends on the very GPU: a pass by it on another one tells nothing.
    """
    return all(
        gate.answer.rule != "driver-forward" or gate.answer.says == "yes" for gate in known.gates
    )


def _with(
    known: Judgement,
    says: Says,
    answer: Answer,
    *,
    confidence: Confidence | None = None,
    test: Tested | None = None,
) -> Judgement:
    """Return a judgement with what a test adds to it."""
    gates = (*known.gates, Gate(gate="E", answer=answer))
    return Judgement(says=says, gates=gates, confidence=confidence, test=test)


def _told(test: Tested, says: Says) -> Answer:
    rule = "test-passed" if says == "yes" else "test-failed"
    return Answer(says=says, rule=rule, compared=_where(test))


def _told_old(test: Tested) -> Answer:
    compared = (*_where(test), ("because", BECAUSE[test.stale or "age"]))
    return Answer(says="yes", rule="test-old", compared=compared)


def _where(test: Tested) -> Numbers:
    return ("gpu", test.gpu or f"sm {test.sm}"), ("driver", test.driver), ("at", test.at[:10])
