"""The documents that the index consists of: shards, groups, generations, one head, one config.

    head -> generation -> groups -> shards -> entries -> evidence

- A shard holds the entries of one framework, minor version and CUDA; a group links the shards of
  one framework and minor version, and says where the moving tags among them point; a generation
  links the groups. So a publish writes a few kilobytes, however large the farm is.
- Everything below the head is named by its hash: one signature over the head covers it all.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from curator.errors import InputError
from curator.index._model import (
    ENTRY_VERSION,
    SPEC,
    Entry,
    Key,
    Model,
    Name,
    Number,
    Repository,
    Sha256,
    Size,
    State,
    Tag,
    Time,
)
from curator.oci import canonical_json, parse_registry

Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RENAMING: Final = "its publisher's `curator audit --repair --registry HOST` names another"
Base64 = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+={0,2}$", max_length=1024)]


def _registry(text: str) -> str:
    """Hold a text to what engines take: it ends in commands that people copy."""
    try:
        parse_registry(text)
    except InputError as error:
        raise ValueError(f"{error}: {RENAMING}") from error
    return text


class LaterEntry(Model):
    """An entry of a version that this reader does not know: kept as it is, never shown."""

    v: Annotated[int, Field(gt=ENTRY_VERSION)]
    id: Name


class Shard(Model):
    """The entries of one framework, minor version and CUDA, sorted by id."""

    spec: Literal[1] = SPEC
    key: str
    entries: tuple[Annotated[Entry | LaterEntry, Field(union_mode="left_to_right")], ...]

    @model_validator(mode="after")
    def _holds_its_own(self) -> Self:
        ids = [entry.id for entry in self.entries]
        if len(set(ids)) != len(ids):
            raise ValueError("two entries have the same id")
        if strangers := [entry.id for entry in self.known if entry.shard != self.key]:
            raise ValueError(f"{strangers[0]} does not belong to shard {self.key}")
        return self

    @property
    def known(self) -> tuple[Entry, ...]:
        """The entries that this version can read."""
        return tuple(entry for entry in self.entries if isinstance(entry, Entry))


class ShardLink(Model):
    """A group's pointer to a shard."""

    sha256: Sha256
    entries: Size


class Group(Model):
    """The shards of one framework and minor version, by key, and the moving tags among them.

    `tags` maps `repository:tag` to a digest. They are decided within a group and nowhere else.
    """

    spec: Literal[1] = SPEC
    key: str
    shards: dict[str, ShardLink]
    tags: dict[str, Sha256]

    @model_validator(mode="after")
    def _holds_its_own(self) -> Self:
        if strangers := [key for key in self.shards if group_of_shard(key) != self.key]:
            raise ValueError(f"shard {strangers[0]} does not belong to group {self.key}")
        return self

    @property
    def count(self) -> int:
        """How many entries its shards hold."""
        return sum(link.entries for link in self.shards.values())


def group_of_shard(key: str) -> str:
    """Return the group that a shard belongs to: `cupy/14.2/12.9` -> `cupy/14.2`."""
    return key.rpartition("/")[0]


class GroupLink(Model):
    """A generation's pointer to a group."""

    sha256: Sha256
    entries: Size


class EntryChange(Model):
    """What a generation did to one entry; `tag` is the immutable name that it stands under."""

    entry: Name
    digest: Sha256
    repository: Repository
    state: State
    tag: Tag | None = None


class Generation(Model):
    """One committed state of the index: immutable, numbered without gaps, chained by hash.

    `moved` holds the moving tags whose digest differs from the parent's, with None for a name
    that lost its last image. `record` is the digest of the `Record` that tells the same change.
    """

    spec: Literal[1] = SPEC
    store: str
    number: Number
    parent: Sha256 | None = None
    at: Time
    publishes: tuple[Key, ...]
    groups: dict[str, GroupLink]
    changes: tuple[EntryChange, ...]
    moved: dict[str, Sha256 | None]
    record: Sha256 | None = None

    @property
    def count(self) -> int:
        """How many entries this state holds."""
        return sum(link.entries for link in self.groups.values())


class Record(Model):
    """What one publish was about to commit, kept as evidence: enough to make the index again.

    `base` is the number of the generation that it was computed on (0: none), and `parent` the
    digest of that generation's own record. So a record that another one names was committed.
    """

    spec: Literal[1] = SPEC
    kind: Literal["publish"] = "publish"
    base: Size
    parent: Sha256 | None = None
    at: Time
    publish: Key
    entries: tuple[Annotated[Entry | LaterEntry, Field(union_mode="left_to_right")], ...]


class Signature(Model):
    """One key's signature over a head: DSSE's, in base64."""

    keyid: Hex
    sig: Base64


class Head(Model):
    """The one hot mutable document: which generation readers start from.

    A signed head has an end: whoever serves an old one for ever is found out (`expires`).
    """

    spec: Literal[1] = SPEC
    store: str
    gen: Number
    path: str
    sha256: Sha256
    signed_at: Time
    expires: Time | None = None
    signatures: tuple[Signature, ...] = ()

    @property
    def statement(self) -> bytes:
        """What is signed: everything but the signatures."""
        fields = self.to_json()
        del fields["signatures"]
        return canonical_json(fields)


class SigningKey(Model):
    """A public key, in PEM; `keyid` is the SHA-256 of its DER form (SubjectPublicKeyInfo)."""

    keyid: Hex
    scheme: Literal["ed25519", "ecdsa-sha2-nistp256"]
    public: Annotated[str, Field(max_length=4096)]


class Config(Model):
    """What rarely changes: identity, where images are pulled from, who signs the head.

    `threshold` of `keys` have to sign; without keys nothing is signed.
    """

    spec: Literal[1] = SPEC
    store: str
    registry: Annotated[str, AfterValidator(_registry)]
    shards: Literal["framework/minor/cuda"] = "framework/minor/cuda"
    keys: tuple[SigningKey, ...] = ()
    threshold: Annotated[int, Field(ge=1, le=100)] = 1
