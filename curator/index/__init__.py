"""What is published, as values: entries in shards, states in a chain of generations, one head.

- The index is the truth and tags are its projection: everything here is computed from documents.
- A generation is immutable and is the commit; the head is only where readers start.
- A document that does not have the hash it is named by is an `IntegrityError`, never a guess.
- Fields and entries of newer versions survive a rewrite, and such entries keep their moving tags.
- Time is passed in as text; nothing here asks a clock.

    index = read_index(store)
    entry = index.find(cell="cupy-14.2.0-cuda12.9-py3.11")
"""

from __future__ import annotations

from curator.index._chain import (
    Document,
    Source,
    Tip,
    following,
    head_tip,
    parse_generation,
    parse_head,
    read_config,
    read_generation,
    read_tip,
)
from curator.index._documents import (
    Config,
    EntryChange,
    Generation,
    Group,
    GroupLink,
    Head,
    LaterEntry,
    Record,
    Shard,
    ShardLink,
    Signature,
    SigningKey,
    group_of_shard,
)
from curator.index._model import (
    ENTRY_VERSION,
    SHORT_KEY,
    SPEC,
    Channel,
    Coverage,
    Driver,
    Entry,
    Model,
    Outcome,
    Sm,
    SmGap,
    Stack,
    State,
    Status,
    SuiteResult,
    entry_id,
    group_of,
    instant,
    minor_of,
)
from curator.index._next import Commit, commit_documents, head_document, head_of
from curator.index._read import parse
from curator.index._shapes import FrameworkFile, Report, WholeFile
from curator.index._state import (
    Index,
    named,
    parse_group,
    parse_shard,
    read_group,
    read_groups,
    read_index,
)
from curator.places import (
    CONFIG_PATH,
    HEAD_PATH,
    MAX_DOCUMENT_BYTES,
    evidence_path,
    generation_path,
    group_path,
    shard_path,
)

__all__ = [
    "CONFIG_PATH",
    "ENTRY_VERSION",
    "HEAD_PATH",
    "MAX_DOCUMENT_BYTES",
    "SHORT_KEY",
    "SPEC",
    "Channel",
    "Commit",
    "Config",
    "Coverage",
    "Document",
    "Driver",
    "Entry",
    "EntryChange",
    "FrameworkFile",
    "Generation",
    "Group",
    "GroupLink",
    "Head",
    "Index",
    "LaterEntry",
    "Model",
    "Outcome",
    "Record",
    "Report",
    "Shard",
    "ShardLink",
    "Signature",
    "SigningKey",
    "Sm",
    "SmGap",
    "Source",
    "Stack",
    "State",
    "Status",
    "SuiteResult",
    "Tip",
    "WholeFile",
    "commit_documents",
    "entry_id",
    "evidence_path",
    "following",
    "generation_path",
    "group_of",
    "group_of_shard",
    "group_path",
    "head_document",
    "head_of",
    "head_tip",
    "instant",
    "minor_of",
    "named",
    "parse",
    "parse_generation",
    "parse_group",
    "parse_head",
    "parse_shard",
    "read_config",
    "read_generation",
    "read_group",
    "read_groups",
    "read_index",
    "read_tip",
    "shard_path",
]
