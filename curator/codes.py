"""What the codes of errors and findings mean, and what to do about each. Pure.

`curator.errors` and everything above it name codes; each stands here once, and a test holds the
two together. `curator explain CODE` prints them.

>>> CODES["cycle"]
('bases extend each other in a circle', 'let one of them extend nothing')
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOCK = "`curator lock CELL` writes it anew"
_EDIT = "correct it at the line and column that are named"
_AGAIN = "run the same command again"
_REPORT = "run again with --debug and report what it shows"
_REPAIR = "`curator audit --repair` mends it"
_REBUILD = "`curator index rebuild --to PLACE` makes the index again from evidence and registry"
_WARY = "do not use it until its publisher says why"

# Code -> what it means, and what to do.
CODES: Final[Mapping[str, tuple[str, str]]] = {
    # How a command ends
    "usage": ("the command line is not one of this verb's", "see `curator VERB --help`"),
    "input": ("what was given is wrong", _EDIT),
    "empty-selection": ("a selector matched no cell", "take one of the nearest ids that are named"),
    "no-fit": (
        "no published image is known to run on the host",
        "see what would have to change, and `curator resolve --all` for every image's first no",
    ),
    "temporary": ("a server is down, slow, or asked us to wait", _AGAIN),
    "cancelled": ("somebody asked to stop, and it was stopped", "the same command goes on"),
    "interrupted": ("Ctrl-C came before anything had begun", "the same command begins again"),
    "failed": ("something that was tried did not work", "the message says what"),
    "internal": ("a defect of this program", _REPORT),
    "refused": (
        "a server or a rule of ours said no, and would say it again",
        "the message names who and why: a login, a right, or a name that may not change",
    ),
    "conflict": (
        "somebody else was first: a condition of a write did not hold",
        "look at what is there now, then run the same command again",
    ),
    "build": ("an image's build ran and failed", "read its log, whose last lines are shown"),
    "base-moved": (
        "the distribution has moved past what a base's lock names",
        "`curator lock --bases`, and commit what it writes",
    ),
    "probe-fault": (
        "a probe passed its negative control: what it says of any image is worth nothing",
        "mend the framework's probe.py before anything is tested with it",
    ),
    # What is given on the command line or in the environment
    "host": ("this machine or the host that was described lacks something", "see `curator doctor`"),
    "setting": ("a CURATOR_* variable holds no value of its kind", "correct or unset it"),
    "location": ("no place that an index is read from", "name https://HOST/PATH or a directory"),
    "store": (
        "no place of a store, or what should open it is missing or malformed",
        "name a directory, https://ACCOUNT.blob.core.windows.net/CONTAINER or azure:CONTAINER",
    ),
    "reference": (
        "no name of an image or registry that an engine takes",
        "write host[:port][/prefix]/NAME[:TAG][@sha256:...]",
    ),
    "registry": (
        "no host of a registry, but a short name",
        "name the host that docker's configuration has the login under",
    ),
    "address": ("no address of a server", "write it as https://HOST/PATH or HOST[:PORT]"),
    "digest": ("no sha256 digest", "write sha256: and 64 lower-case hex digits"),
    "platform": ("no platform", "write linux/amd64"),
    "version": ("neither a version nor a range", "write 2.9, or '>=2.6,<2.9'"),
    "framework": ("images of several frameworks answer", "name one with --framework"),
    "emit": ("no such kind of document", "see `curator resolve --help`"),
    "expect": ("no expectation of a moving tag", "write cupy:14.2=sha256:... or cupy:14.2=absent"),
    "publish": ("several publishes begin with this id", "write more of it"),
    "generation": (
        "the index has no such generation, or its document is damaged",
        f"see `curator index status`; of a damaged one, {_REBUILD}",
    ),
    "unknown": (
        "neither an image, a combination nor a code of this name is known",
        "name it as tensorflow-1.8-cuda9.2, pytorch:2.9 or an image's id",
    ),
    "no-index": (
        "no index was read: what is published is not known",
        "name one with --index or CURATOR_INDEX; what ships with curator is answered without",
    ),
    "key": (
        "no key of a kind that signs here, or a wrong password",
        "give PEM of ECDSA P-256 or Ed25519; CURATOR_SIGNING_PASSWORD holds the password",
    ),
    "threshold": (
        "more keys have to sign than were given",
        "name more with --key, or lower --threshold",
    ),
    "engine": ("two docker engines are named at once", "name one: DOCKER_HOST or a context"),
    "layout": ("no OCI layout or archive of the image", "`docker save`, or skopeo copy ... oci:"),
    "image": (
        "an image is not what its name or the index says, or is gone",
        f"{_REPAIR} from staging, else build it again",
    ),
    "plan": ("no file of a plan", "`curator plan -o FILE` writes one"),
    "report": ("no report of a test, or of no cell of this farm", "`curator smoke -o` writes one"),
    "path": ("no path of a document in a store", _REPORT),
    # A farm's files
    "no-farm": (
        "there is no matrix/farm.yaml here or above",
        "run in a farm's directory, or name it with -C DIR",
    ),
    "file": ("a farm's file is no UTF-8 text, too large, or a link out of the farm", _EDIT),
    "missing-file": ("a file that the farm needs is missing", "add it under the name that is told"),
    "file-name": ("a framework's file is not named after it", "rename one of the two"),
    "yaml": ("the file is no YAML mapping", _EDIT),
    "json": ("the file is no JSON object", _EDIT),
    "alias": ("YAML anchors and aliases are not taken", "write the value out"),
    "too-big": ("the file is larger than any such file has to be", "split or shorten it"),
    "too-deep": ("the YAML is nested deeper than any such file has to be", _EDIT),
    "unquoted": ("YAML reads a version as a number", 'quote it: "12.10" is not 12.1'),
    "duplicate-key": ("a key stands twice in one mapping", "keep one"),
    "duplicate-value": ("a value stands twice on an axis", "keep one"),
    "unknown-key": ("no such key is known there", "see the names near it that are told"),
    "missing-key": ("a key is missing", "add it"),
    "wrong-value": ("a value is of another kind than its key takes", _EDIT),
    "bad-value": ("a value is none of its axis", _EDIT),
    "bad-variable": ("no name of an environment variable for images", _EDIT),
    "bad-specifier": ("no range of versions (PEP 440)", "write >=2.6,<2.9"),
    "bad-template": ("no text with {fields}", "a field is a name in braces, no more"),
    "unknown-field": ("a text names a field that there is not", "see the known ones that are told"),
    "no-condition": ("a rule names no axis and would match everything", "name what it is about"),
    "idle-exclude": ("an exclude matches no combination", "remove or correct it"),
    "unknown-cuda": (
        "an axis names a CUDA release without facts",
        "add it to matrix/cuda.yaml, with its source",
    ),
    "no-base": ("no base is named for a Python of the axis", "add it to the framework's bases"),
    "unknown-base": ("no such base is in matrix/bases.yaml", "take one that is told, or add it"),
    "wrong-base": ("a base has another Python than it is named for", "name another base"),
    "base-kind": ("a base is made in two ways at once", "keep one"),
    "base-name": ("no name for a base", "write it as debian-12"),
    "cycle": ("bases extend each other in a circle", "let one of them extend nothing"),
    "template": ("a Dockerfile's template cannot be rendered", _EDIT),
    "probe": ("a framework's probe.py is missing, too large or no Python", _EDIT),
    "no-lock": ("a cell or base has no lock", "`curator lock CELL`, or `curator lock --bases`"),
    "stale-lock": ("a lock was made of other inputs", _LOCK),
    "orphan": ("a lock or a refusal belongs to no combination", "remove it"),
    "lock-header": ("a lock does not begin as locks do", _LOCK),
    "lock-line": ("a line of a lock is none", _LOCK),
    "empty-lock": ("a lock holds no wheel", _LOCK),
    "unsorted-lock": ("a lock's wheels are not sorted, each once", _LOCK),
    "unpinned": ("a wheel is not pinned with ==", _LOCK),
    "no-hash": ("a wheel has no hash", _LOCK),
    "base-lock": ("no lock of a base", "`curator lock --bases` writes it anew"),
    "rejections": ("the list of what the package index cannot serve is damaged", _LOCK),
    # What is not to be believed of an index
    "integrity": ("bytes have another digest, size or type than was promised", _WARY),
    "signature": ("too few of the trusted keys signed what was read", _WARY),
    "rollback": ("an index is older than one that was seen before", _WARY),
    "freeze": (
        "an index is past the end that its signature gives it",
        "its publisher signs a new one with any publish, or `curator audit --repair`",
    ),
    "fork": ("another state stands under a number that was seen before", _WARY),
    "mixed": (
        "documents of different states stand side by side",
        f"a publish may be under way: {_AGAIN}; if it stays, {_WARY}",
    ),
    "stranger": (
        "the store is another one than was read here before, or its keys or registry are others",
        "if its publisher says that this is right, delete the file of pins that is named",
    ),
    # What `audit` and `index verify` find
    "config": ("v1/config.json is damaged or missing", _REPAIR),
    "head": ("v1/head.json is damaged or missing", _REPAIR),
    "head-behind": ("the head names an older generation than there is", _REPAIR),
    "group": ("a group's document is damaged or missing", _REBUILD),
    "shard": ("a shard's document is damaged or missing", _REBUILD),
    "evidence": ("a report that an entry names is damaged or missing", "test the image again"),
    "page": ("the page beside the index is not what the index says", _REPAIR),
    "derived": ("a file that is made of the index differs from it", _REPAIR),
    "missing-tag": ("a tag of the index is not in the registry", _REPAIR),
    "moving-tag": ("a moving tag is at another digest than the index says", _REPAIR),
    "immutable-tag": ("a tag that never moves was moved", f"{_REPAIR}; see who may write there"),
    "unknown-tag": (
        "the registry has a tag that the index does not know",
        "remove it if it is none",
    ),
}
