"""Blobs on their way into a repository: mounted, or sent so that a broken way costs little.

- What is there is not sent. A finished blob is never sent again.
- Every byte is hashed once as it passes; the last of them go only if the digest is right, so
  that nothing wrong is ever committed.
- A big blob goes in chunks. After a break the upload is asked how far it came, and goes on from
  there; a registry that lost it gets the blob from its beginning. A source that breaks is read on
  from where it broke, while its target waits.
- distribution up to 3 loses an upload whose chunk broke in the middle.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pushing-blobs
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Final

from urllib3.exceptions import HTTPError

from curator.errors import CuratorError, IntegrityError, RefusedError
from curator.registry._answer import (
    ACCEPTED,
    CREATED,
    FORBIDDEN,
    NO_CONTENT,
    NOT_FOUND,
    OK,
    SERVER_ERROR,
    SUCCESS,
    UNAUTHORIZED,
    Answer,
    expect,
    expect_digest,
    number,
)
from curator.registry._retry import RETRIED, pause_s, repeat
from curator.wire import PIECE

if TYPE_CHECKING:
    from pathlib import Path

    from curator.oci import Descriptor, Reference
    from curator.registry._retry import Deadline, TransferDeadline
    from curator.registry._transport import Transport

CHUNK: Final = 16 * 1024 * 1024
# Up to here a blob goes in one request, which is the cheapest way and the best understood.
WHOLE: Final = 32 * 1024 * 1024
MAX_LOSSES: Final = 4
# The pauses after answers that do not say whether a blob is there.
UNSURE_WAITS_S: Final = (0.1, 0.4, 0.0)
NO_MOUNT: Final = frozenset({*range(400, 500), 501}) - RETRIED
SURE: Final = RETRIED - {SERVER_ERROR}
_RANGE = re.compile(r"(?:bytes=)?0-(\d{1,18})")

# A blob's bytes from an offset on.
Source = Callable[[int], Generator[bytes]]


def has(transport: Transport, repository: Reference, blob: Descriptor) -> bool:
    """Whether a repository has a blob, as somebody sees who may only read."""
    answer = transport.request("HEAD", repository, _path(repository, blob), follow=True)
    return _is_found(answer, repository, blob)


def lies_in(transport: Transport, target: Reference, blob: Descriptor) -> bool:
    """Whether a repository that is pushed to has a blob already."""
    return _lies_in(transport, target, blob, transport.deadline())


def mount(transport: Transport, source: Reference, target: Reference, blob: Descriptor) -> bool:
    """Give a blob to another repository of the same registry; False if that is not to be had.

    A registry that refuses (it knows no mounts, or we may not read there) is sent the blob instead.
    """
    doing = f"mounting {blob.digest} into {target}"
    query = {"mount": blob.digest, "from": source.repository}
    path = f"/v2/{target.repository}/blobs/uploads/"
    answer = transport.request("POST", target, path, query=query, push=True, also=source.repository)
    if answer.status == CREATED:
        expect_digest(answer, blob.digest, doing)
        return True
    if answer.status in NO_MOUNT:
        return False
    expect(answer, ACCEPTED, doing)
    with contextlib.suppress(CuratorError):  # an upload left open is swept by the registry
        location = transport.location(target, path, answer)
        transport.request("DELETE", target, location, push=True)
    return False


def send(transport: Transport, target: Reference, blob: Descriptor, source: Source) -> None:
    """Upload a blob that is not there yet.

    Raises:
        IntegrityError: the source's bytes are not the blob's, or the registry got others.
    """
    doing = f"uploading {blob.digest} to {target}"
    deadline = transport.transfer_deadline(blob.size)
    upload = _Upload(transport, target, blob, source, deadline)
    answer = repeat(upload.attempt, doing, target.registry, deadline)
    if b"DIGEST_INVALID" in answer.data:
        raise IntegrityError(f"{doing}: the registry got other bytes than were sent")
    expect(answer, SUCCESS, doing)
    expect_digest(answer, blob.digest, doing)
    if answer.status != CREATED and not lies_in(transport, target, blob):
        raise RefusedError(f"{doing}: the registry answers {answer.status}, and has it not")


def from_file(path: Path) -> Source:
    """Read a blob from a file."""

    def pieces(offset: int) -> Generator[bytes]:
        with path.open("rb") as file:
            file.seek(offset)
            while piece := file.read(PIECE):
                yield piece

    return pieces


def from_bytes(data: bytes) -> Source:
    """Read a blob from memory."""

    def pieces(offset: int) -> Generator[bytes]:
        for begin in range(offset, len(data), PIECE):
            yield data[begin : begin + PIECE]

    return pieces


def from_registry(transport: Transport, source: Reference, blob: Descriptor) -> Source:
    """Read a blob from another registry, on from where it breaks."""

    def pieces(offset: int) -> Generator[bytes]:
        deadline = transport.transfer_deadline(blob.size)
        failures = 0
        while offset < blob.size:
            try:
                with transport.stream(source, blob, offset, deadline) as found:
                    for piece in found:
                        failures = 0
                        deadline.progressed()
                        offset += len(piece)
                        yield piece
                if offset < blob.size:
                    raise HTTPError(f"only {offset} bytes of {blob.digest} came")  # noqa: TRY301 - as a break
            except HTTPError as error:
                failures += 1
                wait_s = pause_s(error, failures, f"reading {blob.digest}", source.registry)
                deadline.failed()
                if wait_s > deadline.again_s:
                    raise
                time.sleep(wait_s)

    return pieces


def _lies_in(transport: Transport, target: Reference, blob: Descriptor, deadline: Deadline) -> bool:
    """Whether a blob need not be sent. What a registry cannot say is sent.

    distribution answers 500 for a blob whose link a full disk tore, until it is sent again.
    """
    path = _path(target, blob)
    for wait_s in UNSURE_WAITS_S:
        answer = transport.request(
            "HEAD", target, path, push=True, follow=True, retried=SURE, deadline=deadline
        )
        if answer.status != SERVER_ERROR:
            return _is_found(answer, target, blob)
        time.sleep(wait_s)
    return False


def _path(repository: Reference, blob: Descriptor) -> str:
    return f"/v2/{repository.repository}/blobs/{blob.digest}"


def _is_found(answer: Answer, repository: Reference, blob: Descriptor) -> bool:
    if answer.status == NOT_FOUND:
        return False
    expect(answer, OK, f"looking for {blob.digest} in {repository}")
    size = number(answer.headers.get("Content-Length"))
    if size not in {None, blob.size}:
        raise IntegrityError(
            f"{repository} has {size} bytes under {blob.digest}, which are {blob.size}"
        )
    return True


class _Upload:
    """One blob that is sent, and what is known of how far it came."""

    def __init__(
        self,
        transport: Transport,
        target: Reference,
        blob: Descriptor,
        source: Source,
        deadline: TransferDeadline,
    ) -> None:
        self._transport, self._target, self._blob = transport, target, blob
        self._feed = _Feed(blob, source, deadline)
        self._deadline = deadline
        self._location: str | None = None
        self._chunk = CHUNK if blob.size > WHOLE else 0
        self._tries = self._losses = 0

    def attempt(self) -> Answer:
        """Send what is missing, and commit it; what breaks can be attempted again."""
        self._tries += 1
        if self._tries > 1 and self._is_there():
            return Answer(status=CREATED, headers={}, data=b"", registry=self._target.registry)
        offset = self._standing() if self._location else 0
        if self._location is None:
            self._location = self._open()
        with contextlib.closing(self._feed):
            return self._sent(offset)

    def _is_there(self) -> bool:
        return _lies_in(self._transport, self._target, self._blob, self._deadline)

    def _open(self) -> str:
        path = f"/v2/{self._target.repository}/blobs/uploads/"
        answer = self._transport.request(
            "POST", self._target, path, push=True, deadline=self._deadline
        )
        expect(answer, ACCEPTED, f"starting an upload to {self._target}")
        least = number(answer.headers.get("OCI-Chunk-Min-Length")) or 0
        self._chunk = max(self._chunk, least) if self._chunk else 0
        return self._transport.location(self._target, path, answer)

    def _standing(self) -> int:
        """Return how far the broken upload came; without a word on it, it is given up."""
        location, self._location = str(self._location), None
        answer = self._transport.request(
            "GET", self._target, location, push=True, deadline=self._deadline
        )
        come = _come(answer) if answer.status == NO_CONTENT else None
        if come is None or come > self._feed.passed:
            return 0
        self._location = self._transport.location(self._target, location, answer)
        if come and not self._chunk:
            self._chunk = CHUNK
        return come

    def _sent(self, offset: int) -> Answer:
        if not self._chunk:
            return self._committed(0, self._blob.size)
        while offset < self._blob.size:
            count = min(self._chunk, self._blob.size - offset)
            headers = {"Content-Range": f"{offset}-{offset + count - 1}"}
            location = str(self._location)
            answer = self._part("PATCH", location, offset, count, headers)
            if answer.status != ACCEPTED:
                return self._not_taken(answer)
            self._location = self._transport.location(self._target, location, answer)
            offset += count
            if _come(answer) not in {None, offset}:
                raise HTTPError(f"{self._target} took a part of a chunk")
            self._deadline.progressed()
        return self._committed(offset, 0)

    def _committed(self, offset: int, count: int) -> Answer:
        location = str(self._location)
        digest = f"{'&' if '?' in location else '?'}digest={self._blob.digest}"
        answer = self._part("PUT", location + digest, offset, count, {})
        return self._lost(answer) if answer.status == NOT_FOUND else answer

    def _part(
        self, method: str, location: str, offset: int, count: int, headers: dict[str, str]
    ) -> Answer:
        return self._transport.send(
            method,
            self._target,
            location,
            lambda: self._feed.part(offset, count),
            size=count,
            headers=headers,
            deadline=self._deadline,
        )

    def _not_taken(self, answer: Answer) -> Answer:
        """Decide on a chunk that was refused: again, from the beginning, as a whole, or never."""
        if answer.status in RETRIED or answer.status in {UNAUTHORIZED, FORBIDDEN}:
            return answer
        if answer.status not in {NOT_FOUND, 416}:
            self._chunk = 0
        return self._lost(answer)

    def _lost(self, answer: Answer) -> Answer:
        """Begin again, as long as there is hope."""
        self._location = None
        self._losses += 1
        if self._losses > MAX_LOSSES:
            return answer
        raise HTTPError(f"{self._target} lost an upload: status {answer.status}")


def _come(answer: Answer) -> int | None:
    """Return how many bytes an upload has; an empty one is told as 0-0, and so is one byte."""
    match = _RANGE.fullmatch(answer.headers.get("Range", ""))
    if match is None:
        return None
    return int(match[1]) + 1 if match[1] != "0" else 0


class _Feed:
    """A blob's bytes in measured parts, each hashed once; the last only if all of it is right."""

    def __init__(self, blob: Descriptor, source: Source, deadline: Deadline) -> None:
        self._blob, self._source, self._deadline = blob, source, deadline
        self._pieces: Generator[bytes] | None = None
        self._rest = b""
        self._position = 0
        self._hash = hashlib.sha256()
        self.passed = 0

    def part(self, offset: int, count: int) -> Iterator[bytes]:
        """Give exactly so many bytes from an offset on."""
        if self._pieces is None or offset != self._position:
            self.close()
            self._pieces, self._position = self._source(offset), offset
        if not self._blob.size:
            self._check()
        while count:
            piece = self._rest or next(self._pieces, b"")
            if not piece:
                raise IntegrityError(f"{self._blob.digest} ends after {self._position} bytes")
            given, self._rest = piece[:count], piece[count:]
            count -= len(given)
            self._pass(given)
            yield given

    def close(self) -> None:
        """Let go of the source."""
        if self._pieces is not None:
            self._pieces.close()
        self._pieces, self._rest = None, b""

    def _pass(self, given: bytes) -> None:
        self._deadline.check()
        fresh = given[max(0, self.passed - self._position) :]
        self._hash.update(fresh)
        self.passed += len(fresh)
        self._position += len(given)
        if self._position >= self._blob.size:
            self._check()

    def _check(self) -> None:
        found = f"sha256:{self._hash.hexdigest()}"
        if (found, self.passed) != (self._blob.digest, self._blob.size):
            raise IntegrityError(
                f"{self._blob.digest} of {self._blob.size} bytes comes as {self.passed} bytes "
                f"of {found}: nothing was committed"
            )
