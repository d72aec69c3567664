"""Who a program runs as, by an image's own `/etc/passwd` and `/etc/group`; pure.

>>> resolve("user", "user:x:1000:100::/home/user:/bin/sh", "video:x:44:user")
Identity(uid=1000, gid=100, groups=(44,), home='/home/user')
>>> resolve("7:8", "", "")
Identity(uid=7, gid=8, groups=(), home='/')
"""

from __future__ import annotations

from dataclasses import dataclass

# Source: passwd(5), group(5)
USER_FIELDS = 7
GROUP_FIELDS = 4


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as the kernel knows it, its further groups, and its home."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def resolve(user: str, passwd: str, group: str) -> Identity:
    """Return whom an image's `User` names: `name`, `uid`, `name:group`, `uid:gid` or nothing.

    A group that is named replaces the user's own and further ones, as docker does it.

    Raises:
        ValueError: there is no such name.
    """
    name, _, group_name = (user or "0").partition(":")
    users = [row for row in _rows(passwd, USER_FIELDS) if name == row[0]]
    users += [row for row in _rows(passwd, USER_FIELDS) if name == row[2]]
    groups = _rows(group, GROUP_FIELDS)
    if not users and not name.isdecimal():
        raise ValueError(f"the image has no user {name!r}")
    login, uid, gid, home = (
        (users[0][0], int(users[0][2]), int(users[0][3]), users[0][5])
        if users
        else ("", int(name), 0, "/")
    )
    if group_name:
        return Identity(uid, _gid(group_name, groups), (), home or "/")
    further = sorted({int(row[2]) for row in groups if login and login in row[3].split(",")})
    return Identity(uid, gid, tuple(further), home or "/")


def _gid(name: str, groups: list[list[str]]) -> int:
    found = next((row for row in groups if row[0] == name), None)
    if found is None and not name.isdecimal():
        raise ValueError(f"the image has no group {name!r}")
    return int(found[2]) if found else int(name)


def _rows(text: str, fields: int) -> list[list[str]]:
    """Return the lines of a colon-separated file that are whole, their ids numbers."""
    rows = [line.split(":") for line in text.splitlines()]
    ids = slice(2, 4) if fields == USER_FIELDS else slice(2, 3)
    return [row for row in rows if len(row) == fields and all(n.isdecimal() for n in row[ids])]
