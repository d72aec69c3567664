"""Farms that are wrong in ways that nobody means: each gives findings, never anything else.

What is known not to hold yet is marked with its reason, strictly: a mark goes with its fault.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curator import matrix
from curator.errors import Diagnostic, InputError
from curator.lockfile import ImageLock, dump_base
from curator.oci import sha256
from tests.trees import BASES, DEMO, base_text, lock_text, tiny_tree
from tests.unit.test_matrix import DEMO_YAML, LOCK, Broken, edited, without

CUDA_YAML, BASES_YAML, FARM_YAML = "matrix/cuda.yaml", "matrix/bases.yaml", "matrix/farm.yaml"
REJECTED = "matrix/locks/demo/rejected.json"
BASE_LOCK = "matrix/locks/bases/debian-12-linux-amd64.json"
LOCKED = "demo-2.0-cuda12.8-py3.11"


def with_file(file: str, text: str, *gone: str) -> dict[str, str]:
    return {**without(*gone), file: text}


def with_lock(old: str, new: str) -> dict[str, str]:
    return edited(LOCK, old, new)


HOSTILE = {
    "executable tag": Broken(
        edited(DEMO_YAML, "package: demo-pkg", 'package: !!python/object/apply:os.system ["true"]'),
        "wrong-value",
        "matrix/demo.yaml:2:10",
        "valid string",
    ),
    "merge key": Broken(
        edited(DEMO_YAML, '{version: "<2"', '{<<: {version: "<2"}'),
        "unquoted",
        "matrix/demo.yaml:12:6",
        "quote it",
    ),
    "key that is a truth value": Broken(
        edited(DEMO_YAML, "package:", "on: x\npackage:"),
        "unquoted",
        "matrix/demo.yaml:2:1",
        'quote it: "on"',
    ),
    "key of nothing": Broken(
        edited(DEMO_YAML, "package:", "~: x\npackage:"),
        "unquoted",
        "matrix/demo.yaml:2:1",
        'quote it: "~"',
    ),
    "raw NUL": Broken(
        edited(DEMO_YAML, "demo-pkg", "demo\0pkg"), "yaml", "matrix/demo.yaml:1:1", "not YAML"
    ),
    "alias of nothing": Broken(
        edited(DEMO_YAML, "[demo-pkg]", "*names"), "alias", "matrix/demo.yaml:10:12", "write"
    ),
    "null for text": Broken(
        edited(DEMO_YAML, "package: demo-pkg", "package:"),
        "wrong-value",
        "matrix/demo.yaml:2:9",
        "package: input should be a valid string",
    ),
    "date for a version": Broken(
        edited(DEMO_YAML, '["1.0", "2.0"]', '[2024-01-01, "2.0"]'),
        "bad-value",
        "matrix/demo.yaml:5:13",
        "'2024-01-01' is not a version",
    ),
    "list in an axis": Broken(
        edited(DEMO_YAML, '["1.0", "2.0"]', '[["1.0"], "2.0"]'),
        "wrong-value",
        "matrix/demo.yaml:5:13",
        "valid string",
    ),
    "unknown axis": Broken(
        edited(DEMO_YAML, '  python: ["3.11"]', '  cudnn: ["9"]\n  python: ["3.11"]'),
        "unknown-key",
        "matrix/demo.yaml:7:3",
        "did you mean 'cuda'?",
    ),
    "python without a base": Broken(
        edited(DEMO_YAML, 'python: ["3.11"]', 'python: ["3.11", "3.13"]'),
        "no-base",
        "matrix/demo.yaml:7:20",
        "no base is named for Python 3.13",
    ),
    "specifier for a platform": Broken(
        edited(DEMO_YAML, 'version: "<2", cuda: ">=13"', 'platform: ">=2"'),
        "bad-value",
        "matrix/demo.yaml:12:16",
        "a platform such as linux/amd64",
    ),
    "path in a platform": Broken(
        edited(DEMO_YAML, "[linux/amd64]", '["linux/../../x"]'),
        "bad-value",
        "matrix/demo.yaml:8:14",
        "a platform such as linux/amd64",
    ),
    "empty condition": Broken(
        edited(DEMO_YAML, 'version: "<2"', 'version: ""'),
        "bad-value",
        "matrix/demo.yaml:12:15",
        "'' is not a version",
    ),
    "single equals sign": Broken(
        edited(DEMO_YAML, '"<2"', '"=1.0"'),
        "bad-specifier",
        "matrix/demo.yaml:12:15",
        "'>=2.16,<2.18'",
    ),
    "list for a condition": Broken(
        edited(DEMO_YAML, '"<2"', '["1.0", "2.0"]'),
        "wrong-value",
        "matrix/demo.yaml:12:15",
        "valid string",
    ),
    "attribute in a requirement": Broken(
        edited(DEMO_YAML, "{version}", "{version.__class__}"),
        "unknown-field",
        "matrix/demo.yaml:9:16",
        "known: cuda, cuda_major, cuda_toolkit, version",
    ),
    "index in a requirement": Broken(
        edited(DEMO_YAML, "{version}", "{version[0]}"),
        "unknown-field",
        "matrix/demo.yaml:9:16",
        "'version[0]'",
    ),
    "field without a name": Broken(
        edited(DEMO_YAML, "{version}", "{}"), "unknown-field", "matrix/demo.yaml:9:16", "known:"
    ),
    "open brace": Broken(
        edited(DEMO_YAML, "{version}", "{version"),
        "bad-template",
        "matrix/demo.yaml:9:16",
        "expected '}'",
    ),
    "unknown field in the package": Broken(
        edited(DEMO_YAML, "package: demo-pkg", "package: demo-{major}"),
        "unknown-field",
        "matrix/demo.yaml:2:10",
        "'major'",
    ),
    "unquoted environment": Broken(
        edited(DEMO_YAML, "constrain:", "env: {THREADS: 1}\nconstrain:"),
        "unquoted",
        "matrix/demo.yaml:10:16",
        'quote it: "1"',
    ),
    "sm without a minor": Broken(
        edited(DEMO_YAML, "exclude:", 'sm_min:\n  - {sm: "75", source: s}\nexclude:'),
        "wrong-value",
        "matrix/demo.yaml:12:10",
        "pattern",
    ),
    "also without a reason": Broken(
        edited(DEMO_YAML, "exclude:", "also:\n  - {requirements: [x]}\nexclude:"),
        "missing-key",
        "matrix/demo.yaml:12:5",
        "'because' is missing",
    ),
    "framework in a .yml": Broken(
        with_file("matrix/demo.yml", DEMO, DEMO_YAML),
        "file-name",
        "matrix/demo.yml:1:12",
        "name it demo.yaml",
    ),
    "framework twice": Broken(
        with_file("matrix/other.yaml", DEMO),
        "file-name",
        "matrix/other.yaml:1:12",
        "name it demo.yaml",
    ),
    "framework with a newline": Broken(
        edited(DEMO_YAML, "framework: demo", 'framework: "demo\\n"'),
        "wrong-value",
        "matrix/demo.yaml:1:12",
        "pattern",
    ),
    "missing bases": Broken(
        without(BASES_YAML), "missing-file", "matrix/bases.yaml", "the file is missing"
    ),
    "missing probe": Broken(
        without("dockerfiles/demo/probe.py"),
        "missing-file",
        "matrix/demo.yaml:1:12",
        "dockerfiles/demo/probe.py is missing",
    ),
    "base of itself": Broken(
        edited(BASES_YAML, "{kind: mmdebstrap,", "{extends: debian,"),
        "cycle",
        "matrix/bases.yaml:2:21",
        "debian -> debian",
    ),
    "base of nothing": Broken(
        edited(BASES_YAML, "extends: debian,", "extends: debain,"),
        "unknown-base",
        "matrix/bases.yaml:3:24",
        "'debain'",
    ),
    "base both made and pulled": Broken(
        edited(BASES_YAML, "suite: bookworm", "suite: bookworm, reference: a"),
        "base-kind",
        "matrix/bases.yaml:3:14",
        "keep one",
    ),
    "base without a python": Broken(
        edited(BASES_YAML, ', python: "3.11"', ""),
        "missing-key",
        "matrix/bases.yaml:3:14",
        "does not say its python",
    ),
    "base of an unknown kind": Broken(
        edited(BASES_YAML, "mmdebstrap", "debootstrap"),
        "wrong-value",
        "matrix/bases.yaml:2:18",
        "'mmdebstrap' or 'image'",
    ),
    "cuda twice": Broken(
        edited(CUDA_YAML, '"13.0"', '"12.8"'),
        "duplicate-key",
        "matrix/cuda.yaml:3:3",
        "first on line 2",
    ),
    "cuda that is no version": Broken(
        edited(CUDA_YAML, '"12.8":', '"newest":'),
        "bad-value",
        "matrix/cuda.yaml:2:13",
        "'newest' is no CUDA release",
    ),
    "unquoted toolkit": Broken(
        edited(CUDA_YAML, 'toolkit: "12.8.1"', "toolkit: 12.8"),
        "unquoted",
        "matrix/cuda.yaml:2:21",
        'quote it: "12.8"',
    ),
    "fact without a source": Broken(
        edited(CUDA_YAML, "source: s, ", ""),
        "missing-key",
        "matrix/cuda.yaml:2:11",
        "'source' is missing",
    ),
    "fact read on no day": Broken(
        edited(CUDA_YAML, '"2026-11-23"', '"yesterday"'),
        "wrong-value",
        "matrix/cuda.yaml:2:75",
        "pattern",
    ),
    "empty farm": Broken(with_file(FARM_YAML, ""), "yaml", "matrix/farm.yaml:1:1", "empty"),
    "jobs as text": Broken(
        with_file(FARM_YAML, 'epoch: 1\ndemo: [a]\njobs: "2"\n'),
        "wrong-value",
        "matrix/farm.yaml:3:7",
        "valid integer",
    ),
    "jobs as a truth value": Broken(
        with_file(FARM_YAML, "epoch: 1\ndemo: [a]\njobs: yes\n"),
        "wrong-value",
        "matrix/farm.yaml:3:7",
        "valid integer",
    ),
    "no jobs": Broken(
        with_file(FARM_YAML, "epoch: 1\ndemo: [a]\njobs: 0\n"),
        "wrong-value",
        "matrix/farm.yaml:3:7",
        "greater than or equal to 1",
    ),
    "epoch without end": Broken(
        with_file(FARM_YAML, "epoch: .inf\ndemo: [a]\n"),
        "wrong-value",
        "matrix/farm.yaml:1:8",
        "valid integer",
    ),
    "epoch of thousands of digits": Broken(
        with_file(FARM_YAML, f"epoch: {'9' * 5000}\ndemo: [a]\n"),
        "wrong-value",
        "matrix/farm.yaml:1:8",
        "valid integer",
    ),
    "unknown timeout": Broken(
        with_file(FARM_YAML, "epoch: 1\ndemo: [a]\ntimeouts: {buidl: 5}\n"),
        "unknown-key",
        "matrix/farm.yaml:3:12",
        "did you mean 'build'?",
    ),
    "rejection of nothing": Broken(
        with_file(REJECTED, '{"demo-9": {"because": "a", "source": "b"}}'),
        "orphan",
        f"{REJECTED}:1:1",
        "demo-9 has a lock, or is no combination",
    ),
    "rejection of an excluded combination": Broken(
        with_file(REJECTED, '{"demo-1.0-cuda13.0-py3.11": {"because": "a", "source": "b"}}'),
        "orphan",
        f"{REJECTED}:1:1",
        "is no combination of the axes",
    ),
    "rejection without a source": Broken(
        with_file(REJECTED, '{\n"demo-9": {"because": "a"}}'),
        "rejections",
        f"{REJECTED}:2:1",
        "is not {because, source}",
    ),
    "rejections that are no JSON": Broken(
        with_file(REJECTED, "{"), "json", f"{REJECTED}:1:2", "property name"
    ),
    "rejections in a list": Broken(
        with_file(REJECTED, "[]"), "json", f"{REJECTED}:1:1", "not a JSON object"
    ),
    "rejections nested for ever": Broken(
        with_file(REJECTED, "[" * 100_000), "json", f"{REJECTED}:1:1", "cannot be read"
    ),
    "rejections with endless digits": Broken(
        with_file(REJECTED, '{"a":' + "1" * 5000 + "}"), "json", f"{REJECTED}:1:1", "cannot be read"
    ),
    "lock of another python": Broken(
        with_lock("# python: 3.11", "# python: 3.12"),
        "stale-lock",
        f"{LOCK}:2:1",
        f"for Python 3.12 on linux/amd64 (run `curator lock {LOCKED}`)",
    ),
    "lock of another platform": Broken(
        with_lock("linux/amd64", "linux/arm64"), "stale-lock", f"{LOCK}:2:1", "on linux/arm64"
    ),
    "lock of another release": Broken(
        with_lock("demo-pkg==2.0", "demo-pkg==2.1"),
        "stale-lock",
        f"{LOCK}:2:1",
        "holds demo-pkg 2.1, not 2.0",
    ),
    "lock without CUDA": Broken(
        with_lock("nvidia-cuda-runtime-cu12", "nvidia-curand-cu12"),
        "stale-lock",
        f"{LOCK}:2:1",
        "holds CUDA None, not 12.8",
    ),
    "lock of no wheels": Broken(
        with_file(LOCK, "\n".join(lock_text("2.0", "12.8").splitlines()[:7])),
        "empty-lock",
        f"{LOCK}:7:1",
        "no wheel is locked",
    ),
    "wheel twice": Broken(
        with_file(LOCK, lock_text("2.0", "12.8") + lock_text("2.0", "12.8").splitlines()[-1]),
        "unsorted-lock",
        f"{LOCK}:8:1",
        "each once",
    ),
    "empty lock": Broken(with_file(LOCK, ""), "lock-header", f"{LOCK}:1:1", "# curator lock 1"),
    "option in a lock": Broken(
        with_file(LOCK, lock_text("2.0", "12.8") + "--trusted-host example\n"),
        "unpinned",
        f"{LOCK}:10:1",
        "written by `curator lock`",
    ),
    "lock of an unknown framework": Broken(
        with_file("matrix/locks/other/x.txt", lock_text("2.0", "12.8")),
        "orphan",
        "matrix/locks/other/x.txt",
        "remove it",
    ),
    "lock of an excluded combination": Broken(
        with_file("matrix/locks/demo/demo-1.0-cuda13.0-py3.11.txt", lock_text("1.0", "13.0")),
        "orphan",
        "matrix/locks/demo/demo-1.0-cuda13.0-py3.11.txt",
        "remove it",
    ),
    "base lock that is a list": Broken(
        with_file(BASE_LOCK, "[]"), "json", f"{BASE_LOCK}:1:1", "not a JSON object"
    ),
}


def findings_of(tree: dict[str, str]) -> list[str]:
    with pytest.raises(InputError) as caught:
        matrix.load(tree)
    return [f"{finding.code} {finding}" for finding in caught.value.diagnostics]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_farm_is_told_where_and_how(name: str) -> None:
    hostile = HOSTILE[name]
    found = findings_of(hostile.tree)
    wanted = f"{hostile.code} {hostile.place}"
    assert any(text.startswith(wanted) and hostile.told in text for text in found), found


def case(name: str, tree: dict[str, str], place: str) -> object:
    return pytest.param(tree, place, id=name.replace(" ", "-"))


@pytest.mark.parametrize(
    ("tree", "place"),
    [
        case(
            "a platform that begins with an operator",
            edited(DEMO_YAML, 'version: "<2", cuda: ">=13"', 'platform: "!linux/arm64"'),
            "matrix/demo.yaml:12:16",
        ),
        case(
            "a format that does not fit",
            edited(DEMO_YAML, "{version}", "{version:d}"),
            "matrix/demo.yaml:9:16",
        ),
        case(
            "a field inside a format",
            edited(DEMO_YAML, "{version}", "{version:{nothing}}"),
            "matrix/demo.yaml:9:16",
        ),
        case(
            "an unknown conversion",
            edited(DEMO_YAML, "{version}", "{version!x}"),
            "matrix/demo.yaml:9:16",
        ),
        case(
            "a width in a template",
            edited(DEMO_YAML, "{version}", "{version:>99999}"),
            "matrix/demo.yaml:9:16",
        ),
        case(
            "a version of thousands of digits",
            edited(DEMO_YAML, '"2.0"', f'"{"9" * 5000}"'),
            "matrix/demo.yaml:5:20",
        ),
        case(
            "a lone surrogate",
            with_file(DEMO_YAML, DEMO + "\ud800"),
            "matrix/demo.yaml:",
        ),
        case(
            "a platform of dots and blanks",
            edited(DEMO_YAML, "[linux/amd64]", '["linux/a ..b"]'),
            "matrix/demo.yaml:8:14",
        ),
        case(
            "a version with blanks around it",
            edited(DEMO_YAML, '"2.0"', '" 2.0 "'),
            "matrix/demo.yaml:5:20",
        ),
        case(
            "two spellings of a version",
            edited(DEMO_YAML, '"1.0", "2.0"', '"1.0", "1.0.0"'),
            "matrix/demo.yaml:5:20",
        ),
        case(
            "the name of a base that leads out of its folder",
            {
                **tiny_tree(),
                BASES_YAML: BASES.replace("debian-12", "../../x"),
                DEMO_YAML: DEMO.replace("debian-12", "../../x"),
            },
            "matrix/bases.yaml:3:3",
        ),
        case(
            "the lock of another base",
            with_file(BASE_LOCK, base_text("debian-13")),
            f"{BASE_LOCK}:",
        ),
        case(
            "a pulled image for a base that is made",
            with_file(
                BASE_LOCK,
                dump_base(
                    ImageLock(
                        name="debian-12",
                        platform="linux/amd64",
                        reference="example/image:1",
                        digest=sha256(b""),
                    )
                ),
            ),
            f"{BASE_LOCK}:",
        ),
        case(
            "a kind of base that contradicts its suite",
            edited(BASES_YAML, "suite: bookworm", "kind: image, suite: bookworm"),
            "matrix/bases.yaml:3:",
        ),
        case(
            "a rejection with an empty reason",
            with_file(REJECTED, f'{{"{LOCKED}": {{"because": "", "source": ""}}}}', LOCK),
            f"{REJECTED}:1:",
        ),
        case(
            "a rejection with no text for a reason",
            with_file(REJECTED, f'{{"{LOCKED}": {{"because": null, "source": ["b"]}}}}', LOCK),
            f"{REJECTED}:1:",
        ),
        case(
            "a second CUDA runtime in a lock",
            with_file(
                LOCK,
                lock_text("2.0", "12.8")
                + f"nvidia-cuda-runtime-cu13==13.0.96 --hash=sha256:{'0' * 64}  # 5 bytes\n",
            ),
            f"{LOCK}:",
        ),
        case(
            "a variable whose name brings a line of its own into the Dockerfile",
            edited(DEMO_YAML, "constrain:", 'env: {"A=1\\nUSER root\\nENV B": x}\nconstrain:'),
            "matrix/demo.yaml:10:",
        ),
    ],
)
def test_what_would_end_in_something_else(tree: dict[str, str], place: str) -> None:
    found = findings_of(tree)
    assert any(text.partition(" ")[2].startswith(place) for text in found), found


def test_brackets_by_the_ten_thousand() -> None:
    tree = edited(DEMO_YAML, "[demo-pkg]", "[" * 100_000 + "]" * 100_000)
    (found,) = findings_of(tree)
    assert found.startswith("too-deep matrix/demo.yaml:10:")


TOKENS = st.sampled_from(
    [
        *'"[]{}:-\n!&*<>=~#|%@?,',
        *("&a", "*a", "12.10", "1e5", "0x1f", "yes", "null", "\t", "? ", "---", "...", ".inf"),
        *("!!int", "!!float", "!!bool x", "!!timestamp", "1_000", "0b1", "0o7", "\\x00", "\\ud800"),
        *("é", "\u2028", "\x85", "\x7f", "\ufeff", "\U0001f600", "<<", "linux/amd64", "../"),
        *("==", "!=", "===", "~=", "1.*", "{version}", "{cuda_toolkit}"),
    ]
)


# Derandomised: what it finds on one machine it finds on all.
@settings(max_examples=150, derandomize=True)
@given(st.data())
def test_damage_with_the_words_of_the_format(data: st.DataObject) -> None:
    tree = with_file(REJECTED, "{}\n")
    name = data.draw(st.sampled_from(sorted(tree)))
    text = tree[name]
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 5)))
    words = "".join(data.draw(st.lists(TOKENS, max_size=4)))
    tree[name] = text[:start] + words + text[end:]
    for finding in told(tree):
        assert finding.code
        assert finding.file
        assert finding.line is None or (finding.line >= 1 and (finding.column or 0) >= 1)


def told(tree: dict[str, str]) -> tuple[Diagnostic, ...]:
    try:
        matrix.load(tree)
    except InputError as error:
        return error.diagnostics
    return ()
