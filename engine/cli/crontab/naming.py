"""Names for jobs and triggers, made of their commands."""

from __future__ import annotations

import re
from collections.abc import Container
from hashlib import sha256

_LONGEST = 40
_WORDS = 3
_CLAUSE = re.compile(r"&&|\|\||;|\||\n")
_QUIET = re.compile(r"(?:cd|test|\[|\[\[|command|which|export|set|umask|source|\.|sleep|if|then|exec)\b|\[|\.\s")
_WRAPPERS = frozenset(
    "sudo nice ionice nohup time timeout env flock chronic exec setsid bash sh dash zsh python python3 perl ruby node "
    "php root".split()
)
_ENDING = re.compile(r"\.(?:sh|bash|py|pl|rb|js|php|phar)\Z")
_NOT_IN_NAMES = re.compile(r"[^a-z0-9]+")


def name_of(command: str) -> str:
    """Return a name for a command: its program and what that is told first, as in `artisan-schedule-run`."""
    clauses = [part for clause in _CLAUSE.split(command) if (part := clause.strip(" \t\n{()}"))]
    clause = next((clause for clause in clauses if not _QUIET.match(clause)), clauses[0] if clauses else "")
    words: list[str] = []
    for word in clause.split():
        if word.startswith((">", "<", "2>", "1>", "&>", "|")) or len(words) == _WORDS:
            break
        word = word.strip("\"'")
        if word.startswith(("-", "$", "#")) or "=" in word or word.isdigit():
            continue
        plain = _ENDING.sub("", word.rstrip("/").rpartition("/")[2])
        slug = _NOT_IN_NAMES.sub("-", plain.lower()).strip("-")
        if not slug or (not words and slug in _WRAPPERS):
            continue
        if words and "/" in word:
            break  # a path that it is told says more of the place than of the work
        words.append(slug)
    return "-".join(words)[:_LONGEST].strip("-") or "command"


def unique(name: str, what: str, taken: Container[str]) -> str:
    """Return a name that is not taken; one that is gets a mark of `what` it stands for, the same in each run."""
    if name not in taken:
        return name
    marked = f"{name}-{sha256(what.encode('utf-8', 'replace')).hexdigest()[:4]}"
    number, found = 2, marked
    while found in taken:
        found = f"{marked}-{number}"
        number += 1
    return found
