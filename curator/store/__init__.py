"""Where index documents live: one contract, several backends."""

from curator.store.directory import DirectoryStore

__all__ = ["DirectoryStore"]
