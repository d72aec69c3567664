"""The registry against the index: what differs, what is lost, and what can be mended.

- The index is the truth. A moving tag that differs is pointed back, and the stranger is kept under
  `drift-…`. An immutable tag that differs is an alarm: its entry is quarantined, and the tag is
  left as it is.
- An image that is gone is copied again if staging still has it.
- Where the head names a generation that the chain lost, what is left of the index is no truth any
  more, and nothing is mended.
- Nothing is ever deleted, and a second repair changes nothing.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from curator.errors import IntegrityError, RefusedError
from curator.index import CONFIG_PATH, Status, following, group_of, read_index
from curator.oci import Manifest, hex_of, sha256
from curator.policy import TAGGED, repository
from curator.publish._check import Checked, Finding, earlier_config, looked_at, standing
from curator.publish._commit import amend
from curator.publish._files import derived_files
from curator.publish._finish import Wanted, finished, recent_changes, start_over
from curator.publish._head import forward, mend_config, move_head, require_keys, require_writer
from curator.publish._sign import is_signed, sign_image
from curator.publish._site import SITE_PATH, has_page, mend_site, stale_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from curator.index import Channel, Config, Entry, Index, Tip
    from curator.oci import Digest, Reference
    from curator.publish._values import Target

PARALLEL: Final = 8
DRIFT: Final = "drift-"
NOT_OURS: Final = (DRIFT, "sha256-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What was found, what was written to mend it, and what still stands after that."""

    findings: tuple[Finding, ...]
    repaired: tuple[str, ...] = ()
    left: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the audit as `--json` shows it."""
        return {
            "findings": [finding.to_json() for finding in self.findings],
            "repaired": list(self.repaired),
            "left": [finding.to_json() for finding in self.left],
        }


def audit(target: Target, *, repair: bool = False) -> Audit:
    """Compare store, index and registry; with `repair` mend what can be mended, and look again.

    Raises:
        TemporaryError: store or registry did not answer.
        RefusedError: the index is signed, and the keys are not here; nothing was written.
    """
    found = _looked(target)
    findings = tuple(found.findings)
    if not repair or not any(finding.repairable for finding in findings):
        return Audit(findings=findings, left=findings)
    written = _mend(found, target)
    return Audit(findings=findings, repaired=written, left=tuple(_looked(target).findings))


def _looked(target: Target) -> Checked:
    return standing(target.store, lambda: _look(target))


def _look(target: Target) -> Checked:
    checked = looked_at(target.store, target.now)
    index = checked.index
    if index is None:
        return checked
    tagged = [entry for entry in index.entries if entry.status.state in TAGGED]
    wanted = Wanted()
    wanted.add_index(index)
    jobs: list[Callable[[], list[Finding]]] = [
        *(partial(_image, entry, target, checked.config) for entry in tagged),
        *(partial(_tag, name, wanted, target) for name in sorted(wanted.digests)),
        *(partial(_strangers, name, index, target) for name in _repositories(index)),
    ]
    with ThreadPoolExecutor(PARALLEL) as pool:
        for findings in pool.map(lambda job: job(), jobs):
            checked.findings += findings
    checked.findings += _stale_files(checked, target)
    checked.findings += _stale_pages(target)
    if any(finding.code == "mixed" for finding in checked.findings):
        # The index is older than what was published: what differs from it may be right.
        checked.findings = [replace(finding, repairable=False) for finding in checked.findings]
    return checked


def _repositories(index: Index) -> list[str]:
    """Return the repositories that are curated: both channels of each framework."""
    frameworks = {entry.stack.framework for entry in index.entries}
    channels: tuple[Channel, ...] = ("stable", "candidate")
    return sorted(repository(name, channel) for name in frameworks for channel in channels)


def _where(entry: Entry, target: Target) -> Reference:
    return target.place.repository(entry.repository).with_digest(entry.digest)


def _image(entry: Entry, target: Target, config: Config | None) -> list[Finding]:
    """Look for an image's manifests and blobs, and for its signature if the index is signed."""
    where, registry = _where(entry, target), target.registry
    try:
        missing = list(_missing(where, target))
    except (IntegrityError, RefusedError) as error:
        return [Finding(code="image", subject=str(where), message=str(error), repairable=True)]
    if missing:
        message = f"lacks {', '.join(missing[:3])}, {len(missing)} in all"
        return [Finding(code="image", subject=str(where), message=message, repairable=True)]
    if config is not None and config.keys:
        signed = is_signed(where, config.keys, config.threshold, registry)
        if not signed:
            message = "is not signed by the keys of the index"
            return [Finding(code="signature", subject=str(where), message=message, repairable=True)]
    return []


def _missing(where: Reference, target: Target) -> Iterator[str]:
    """Yield what an image's repository lacks of it.

    Raises:
        RefusedError: the image itself is not there.
        IntegrityError: its bytes are not what its digest says.
    """
    registry = target.registry
    top = registry.manifest(where)
    manifests: list[Manifest] = [top]
    for child in top.children:
        if registry.resolve(where.with_digest(child.digest)) is None:
            yield child.digest
        else:
            manifests.append(registry.manifest(where.with_digest(child.digest)))
    for blob in dict.fromkeys(blob for manifest in manifests for blob in manifest.blobs):
        if not registry.has(where, blob):
            yield blob.digest


def _tag(name: str, wanted: Wanted, target: Target) -> list[Finding]:
    digest = wanted.digests[name]
    found = target.registry.resolve(_named(name, target))
    if found is not None and found.digest == digest:
        return []
    if found is None:
        message = f"is not there, the index says {digest}"
        return [Finding(code="missing-tag", subject=name, message=message, repairable=True)]
    immutable = name in wanted.immutable
    message = f"names {found.digest}, the index says {digest}"
    if immutable:
        message += ": an immutable tag was written by somebody else"
    code = "immutable-tag" if immutable else "moving-tag"
    return [Finding(code=code, subject=name, message=message, repairable=True)]


def _strangers(name: str, index: Index, target: Target) -> list[Finding]:
    """Say which tags of a repository the index does not know."""
    known = {tag.rpartition(":")[2] for tag in index.tags if tag.rpartition(":")[0] == name}
    known |= {tag for entry in index.entries if entry.repository == name for tag in entry.tags}
    tags = target.registry.tags(target.place.repository(name))
    strange = [tag for tag in tags if tag not in known and not tag.startswith(NOT_OURS)]
    message = "is a tag that the index does not know"
    return [
        Finding(code="unknown-tag", subject=f"{name}:{tag}", message=message) for tag in strange
    ]


def _stale_files(checked: Checked, target: Target) -> list[Finding]:
    """Say which derived files are not what they would be if they were made now."""
    if checked.tip is None:
        return []
    recent = recent_changes(target.store, checked.tip)
    found = []
    for path, data in derived_files(checked.tip, None, recent, target).items():
        blob = target.store.read(path)
        if blob is None or blob.data != data:
            stands = f"hashes to {sha256(blob.data)}" if blob else "is missing"
            message = f"{stands}, the index makes it {sha256(data)}"
            found.append(Finding(code="derived", subject=path, message=message, repairable=True))
    return found


def _stale_pages(target: Target) -> list[Finding]:
    """Say whether the page beside the index, if there is one, is what it would be if made now."""
    try:
        stale = stale_pages(target.store)
    except IntegrityError as error:
        return [Finding(code="page", subject=SITE_PATH, message=str(error))]
    if not stale:
        return []
    message = f"{', '.join(stale[:3])}, {len(stale)} files in all, are not what the index says"
    return [Finding(code="page", subject=SITE_PATH, message=message, repairable=True)]


def _mend(found: Checked, target: Target) -> tuple[str, ...]:
    """Mend what can be: images first, then what the index says of them, then names and files."""
    codes = {finding.code for finding in found.findings if finding.repairable}
    written = _mend_head(found.tip, target) if found.tip is not None else []
    index = found.index
    if index is not None:
        for entry in index.entries:
            if entry.status.state in TAGGED:
                written += _mend_image(entry, found, target)
    if "immutable-tag" in codes and index is not None:
        written += _quarantine(found, index, target)
    written += _mend_tags(
        [item.subject for item in found.findings if item.code in {"missing-tag", "moving-tag"}],
        target,
    )
    if "derived" in codes:
        start_over(target)
    # What cannot be done is a finding of the look that follows.
    written += finished(target).written
    # A page that only lags is no finding, and what was just written made it lag.
    if index is not None and has_page(target.store):
        written += mend_site(target.store)
    return tuple(written)


def _mend_head(tip: Tip, target: Target) -> list[str]:
    """Mend what readers are led by, if this publisher may: before that nothing is written."""
    written = [*_mend_registry(target), *mend_config(target, tip)]
    require_writer(target, tip)
    return [*written, *move_head(tip, target)]


def _mend_registry(target: Target) -> list[str]:
    """Name our registry in a configuration that names one which engines do not take."""

    def named(data: bytes | None) -> bytes | None:
        earlier = earlier_config(data) if data is not None else None
        if earlier is None:
            return None
        config = earlier.renamed(str(target.place))
        require_keys(config, target)
        return config.data

    return forward(target.store, CONFIG_PATH, named)


def _mend_image(entry: Entry, found: Checked, target: Target) -> list[str]:
    where = _where(entry, target)
    codes = {finding.code for finding in found.findings if finding.subject == str(where)}
    written = []
    if "image" in codes:
        staging = target.place.repository(f"staging/{entry.stack.framework}")
        source = staging.with_digest(entry.digest)
        if target.registry.resolve(source) is None:
            return []
        target.registry.copy(source, target.place.repository(entry.repository))
        written.append(f"{where} copied from {staging}")
    if codes & {"image", "signature"} and target.signer and sign_image(where, target):
        written.append(f"{where} signed")
    return written


def _mend_tags(names: Sequence[str], target: Target) -> list[str]:
    """Point tags where the newest state says, until it is the newest after that as well.

    An immutable tag that names something is left as it is.
    """
    written: list[str] = []
    while names:
        index, wanted = read_index(target.store), Wanted()
        wanted.add_index(index)
        ours = {entry.digest for entry in index.entries}
        for name in names:
            if (
                name not in wanted.immutable
                or target.registry.resolve(_named(name, target)) is None
            ):
                written += _mend_tag(name, wanted.digests.get(name), ours, target)
        if next(following(target.store, index.tip), None) is None:
            break
    return written


def _mend_tag(
    name: str, digest: Digest | None, ours: Collection[Digest], target: Target
) -> list[str]:
    """Point a tag at its digest; a stranger that it named before is kept aside."""
    where = _named(name, target)
    found = target.registry.resolve(where)
    if digest is None or where.tag is None or (found is not None and found.digest == digest):
        return []
    if target.registry.resolve(where.with_digest(digest)) is None:
        return []  # the image is gone: that is a finding of its own
    written = []
    if found is not None and found.digest not in ours:
        kept = f"{DRIFT}{where.tag[:100]}-{hex_of(found.digest)[:12]}"
        target.registry.tag(where.with_digest(found.digest), kept)
        written.append(f"{name.rpartition(':')[0]}:{kept} -> {found.digest}")
    target.registry.tag(where.with_digest(digest), where.tag)
    return [*written, f"{name} -> {digest}"]


def _named(name: str, target: Target) -> Reference:
    """Return where `repository:tag` is."""
    repository_, _, tag = name.rpartition(":")
    return target.place.repository(repository_).with_tag(tag)


def _quarantine(found: Checked, index: Index, target: Target) -> list[str]:
    """Take entries whose immutable tag names another image out of use, in the index."""
    names = {item.subject: item.message for item in found.findings if item.code == "immutable-tag"}
    taken = {
        entry.id: names[name]
        for entry in index.entries
        for name in (f"{entry.repository}:{tag}" for tag in entry.tags)
        if name in names
    }
    groups = {
        group_of(entry.stack.framework, entry.stack.version)
        for entry in index.entries
        if entry.id in taken
    }

    def quarantined(state: Index) -> Index:
        return state.merge(
            entry.model_copy(update={"status": _status(taken[entry.id], target.now)})
            for entry in state.entries
            if entry.id in taken and entry.status.state in TAGGED
        )

    key = hex_of(sha256(f"quarantine {sorted(taken.items())}".encode()))
    landed = amend(read_index(target.store, groups), groups, target, key, quarantined)
    return [f"{name} quarantined" for name in sorted(taken)] if landed.made else []


def _status(reason: str, now: str) -> Status:
    return Status(state="quarantined", reason=f"its immutable tag {reason}", by="audit", at=now)
