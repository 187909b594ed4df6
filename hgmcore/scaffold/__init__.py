"""Writes a package for a scheme of one's own, out of the files beside this one.

Those end in .in; in their names and texts @NAME@ stands for the scheme's name, @CLASS@ for that of its class, @HOW@ for
what to do next.
"""

from __future__ import annotations

import keyword
import re
import sys
from pathlib import Path

from hgmcore import schemes

KINDS = {
    "python": "`@NAME@.py` has the class with its reactions: change it, and run `pytest`. A call for each leaf takes "
    "about 110 ns; `hgmcore new-scheme` with --c or --cython writes one that runs as fast as those built in.",
    "c": "`@NAME@.h` has the reactions, in C; `@NAME@.pyx` its name and its explanation. After a change install it "
    "again, and run `pytest`.",
    "cython": "`@NAME@.pyx` has the reactions. After a change install it again, and run `pytest`.",
}
"""What a package may be written in, with what its README says of it."""

HERE = Path(__file__).parent


def checked(name: str) -> str:
    """A name that a scheme and its module can have. ValueError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(f"'{name}' is no name for a scheme and its module (lower-case letters, digits and _)")
    if name in schemes.names():
        raise ValueError(f"the name '{name}' is that of a scheme that there is")
    if name in sys.stdlib_module_names or name == "hgmcore":
        raise ValueError(f"'{name}' is the name of another module")
    return name


def write(name: str, kind: str, directory) -> list[Path]:
    """Write the package of scheme `name` into a new folder, or an empty one; returns the files.

    kind: of KINDS. ValueError: the name or the folder cannot be taken. OSError.
    """
    directory = Path(directory)
    checked(name)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ValueError(f"{directory}: there is something already")
    words = {"@NAME@": name, "@CLASS@": "".join(part.capitalize() for part in name.split("_")), "@HOW@": KINDS[kind]}

    def filled(text):
        for word, meaning in reversed(words.items()):
            text = text.replace(word, meaning)
        return text

    written = []
    for source in (HERE / "common", HERE / kind):
        for path in sorted(source.rglob("*.in")):
            target = directory / filled(str(path.relative_to(source)).removesuffix(".in"))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
            written.append(target)
    return written
