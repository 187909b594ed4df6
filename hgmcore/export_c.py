"""The core as C sources that need libc alone (`hgmcore export-c`).

The loops of the core are Cython functions that take no Python object and no GIL. What Cython makes of each is a C
function in which nothing is Python's; only what stands around them is (the module, its types, its imports). So this
file lets Cython translate a scheme's own .pyx, cuts the C into top-level declarations, and keeps those that the
engine's functions reach. The other ways were worse: `cdef public` still includes Python.h; a second translation of the
core would be another thing to keep true; an export by hand would be a fork. What is written is the C that the Python
package itself runs, function by function, under readable names.
"""

from __future__ import annotations

import functools
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from hgmcore import geometry, schemes
from hgmcore.options import core_options, resolve

PACKAGE = Path(__file__).parent
HEADERS = ("engine.h", "entries.h", "events.h", "hgm.h", "host.h", "library.h", "lock.h", "races.h", "scheme.h",
           "told.h")

PRELUDE = """\
#define HGM_OFTEN(x) __builtin_expect(!!(x), 1)
#define HGM_SELDOM(x) __builtin_expect(!!(x), 0)
"""

ENGINE_FUNCTIONS = {"run": "operations.dispatch.run", "page_mapcount_runs": "engine.page_mapcount_runs",
                    "answer": "engine.answer", "movable": "engine.movable", "asked": "operations.dispatch.asked"}


def translated(source: Path) -> str:
    """The C that Cython makes of a .pyx of this package or of another one. ImportError: there is no Cython."""
    try:
        from Cython.Compiler import Errors
        from Cython.Compiler.Main import compile as cython
    except ImportError:
        raise ImportError("export-c translates the core with Cython: pip install 'Cython>=3.1'") from None
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.c"
        try:
            result = cython([str(source)], output_file=str(target), include_path=[str(PACKAGE.parent)],
                            language_level=3)
        except Errors.CompileError as error:
            raise ValueError(f"{source}: Cython does not translate it: {error}") from None
        if result.num_errors:
            raise ValueError(f"{source}: Cython does not translate it")
        return target.read_text(encoding="utf-8")


# -- the pieces of a C file that Cython wrote

_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|[{}();]|^#(?:.*\\\n)*.*$', re.M)
_NAME = re.compile(r"\b[A-Za-z_]\w*")
_COMMENT = re.compile(r'/\*.*?\*/|//[^\n]*|("(?:\\.|[^"\\])*")', re.S)


def sections(text: str) -> dict[str, str]:
    """What stands under each `Code section` that Cython marks."""
    parts = re.split(r"/\* #### Code section: (\w+) ### \*/\n", text)
    return dict(zip(parts[1::2], parts[2::2]))


def early_includes(text: str) -> str:
    """The includes and verbatim C blocks of the .pyx and of all that it cimports, in their order."""
    found = text.partition("/* Early includes */\n")[2].partition("#ifdef _OPENMP")[0]
    return "\n".join(line.rstrip() for line in found.splitlines() if line.strip() and "Python.h" not in line)


def without_comments(text: str) -> str:
    return _COMMENT.sub(lambda found: found[1] or "", text)


def pieces(text: str):
    """The top-level declarations and functions of C text without comments and directives, one by one."""
    depth, start = 0, 0
    function = False
    for token in _TOKEN.finditer(text):
        kind = token[0]
        if kind.startswith("#"):
            if depth == 0:
                start = token.end()
        elif kind in "({":
            if kind == "{" and depth == 0:
                function = text[start:token.start()].rstrip().endswith(")")
            depth += 1
        elif kind in ")}":
            depth -= 1
            if kind == "}" and depth == 0 and function:
                yield text[start:token.end()].strip()
                start, function = token.end(), False
        elif kind == ";" and depth == 0:
            piece = text[start:token.end()].strip()
            if piece != ";":
                yield piece
            start = token.end()


def names_of(piece: str) -> set[str]:
    """The names that a declaration gives: of a function or variable, of a struct, enum or typedef, of enumerators."""
    head = piece.partition("{")[0] if piece.endswith("}") else piece
    found = set()
    if piece.startswith(("struct", "enum", "union", "typedef")) and not piece.endswith("}"):
        tag = re.match(r"(?:typedef )?(?:struct|enum|union)\s+(\w+)", piece)
        if tag and ("{" in piece or re.fullmatch(r"(?:struct|enum|union)\s+\w+;", piece)):
            found.add(tag[1])
        if piece.startswith("enum") or piece.startswith("typedef enum"):
            found.update(re.findall(r"(\w+)\s*(?:=[^,}]*)?[,}]", piece.partition("{")[2]))
        if piece.startswith("typedef"):
            found.update(re.findall(r"\(\*(\w+)\)\s*\(", piece)[:1] or re.findall(r"(\w+)\s*;$", piece))
        if found:
            return found
    called = re.search(r"(\w+)\s*\(", re.sub(r"__attribute__\s*\(\(.*?\)\)", "", head))
    if called and ("=" not in head or head.index("=") > called.start()):
        return {called[1]}
    return set(re.findall(r"(\w+)\s*(?:\[[^]]*\]\s*)*(?:=.*)?;$", head, re.S)[:1])


def reached(text: str, roots: set[str]) -> list[str]:
    """The declarations of a C file that `roots` and the headers need, in their order."""
    part = sections(text)
    types = list(pieces(without_comments(part["type_declarations"])))
    protos = list(pieces(without_comments(part["module_declarations"] + part["global_var"] + part["string_decls"])))
    functions = list(pieces(without_comments(part["module_code"])))
    by_name: dict[str, list[int]] = {}
    everything = [*types, *protos, *functions]
    for number, piece in enumerate(everything):
        for name in names_of(piece):
            by_name.setdefault(name, []).append(number)
    missing = roots - set(by_name)
    if missing:
        raise ValueError(f"Cython's C has no {', '.join(sorted(missing))}: this version of Cython writes it otherwise")
    # what the headers call, the scheme's reactions, has its name in C
    wanted = set()
    ahead = [number for name, found in by_name.items() if name in roots or name.startswith("hgm_") for number in found]
    while ahead:
        number = ahead.pop()
        if number in wanted:
            continue
        wanted.add(number)
        for name in set(_NAME.findall(everything[number])):
            ahead.extend(by_name.get(name, ()))
    return [everything[number] for number in sorted(wanted)]


# -- names

_NAMES = {"__pyx_r": "r_", "CYTHON_INLINE": "inline", "CYTHON_UNUSED": "__attribute__((unused))",
          "likely": "HGM_OFTEN", "unlikely": "HGM_SELDOM", "Py_ssize_t": "ptrdiff_t", "PY_LONG_LONG": "long long"}


def demangled(name: str) -> str:
    """`core_memory_region_grow` for __pyx_f_7hgmcore_4core_6memory_region_grow; other names of Cython's in short."""
    found = re.fullmatch(r"__pyx_[a-z]+_(\d+[A-Za-z_].*)", name)
    if found:
        rest, path = found[1], []
        while (size := re.match(r"(\d+)", rest)):
            width = int(size[1])
            path.append(rest[size.end():size.end() + width])
            rest = rest[size.end() + width + 1:]
        if path and path[0] == "hgmcore":
            path = path[1:]
        return rest if path == ["core", "library"] else "_".join([*path, rest])
    for prefix, short in (("__pyx_v_", "v_"), ("__pyx_t_", "t_"), ("__pyx_L", "L"), ("__pyx_k_", "text_")):
        if name.startswith(prefix):
            return short + name[len(prefix):]
    return _NAMES.get(name, name)


def readable(code: str) -> str:
    """C with names for people, and without the empty blocks and lines that Cython leaves."""
    code = _NAME.sub(lambda name: demangled(name[0]), code)
    return re.sub(r"\n(?:[ \t]*\n)+", "\n", code)


def mangled(dotted: str) -> str:
    """Cython's name in C for the function `core.table.descend` of this package."""
    *path, name = dotted.split(".")
    return "__pyx_f_" + "".join(f"{len(part)}{part}_" for part in ["hgmcore", *path]) + name


def plain(text: str, roots: set[str], public: bool) -> str:
    """The C file with what `roots` (Cython's names) reach; public: these are no static functions."""
    code = reached(text, roots)
    if public:
        heads = re.compile(rf"^static (?:CYTHON_INLINE )?(?=[^({{;]*\b(?:{'|'.join(roots)})\()")
        code = [heads.sub("", piece) for piece in code]
    body = readable("\n\n".join(code))
    left = sorted(set(re.findall(r"\b(?:P[Yy][A-Z_]\w*|CYTHON_\w+|__[Pp]yx\w*)", body)))
    if left:
        raise ValueError(f"Cython's C of the core asks for Python: {', '.join(left[:5])}")
    return f"{early_includes(text)}\n\n{PRELUDE}\n{body}\n"


# -- files

NOTICE = "/* Written by `hgmcore export-c` from {source} of hgmcore {version}. Do not edit. */\n"


def options_text(engine) -> str:
    """The initialiser of an engine's default hgm_options."""
    return "{" + ", ".join(f".{name} = {value}" for name, value in core_options(resolve(engine, {})).items()) + "}"


def flags_text(engine) -> str:
    flags = {"HGM_ENGINE_WHOLE_ONLY": engine.whole_only, "HGM_ENGINE_TAILS": engine.writes_tails,
             "HGM_ENGINE_SCANS": engine.scans, "HGM_ENGINE_FIRST_COME": engine.first_come}
    return " | ".join(name for name, has in flags.items() if has) or "0"


def scheme_text(engine, source: Path, version: str) -> str:
    """One scheme's engine as a C file that defines `hgm_engine_NAME`."""
    roots = {field: mangled(dotted) for field, dotted in ENGINE_FUNCTIONS.items()}
    code = plain(translated(source), set(roots.values()), public=False)
    members = "".join(f"\t.{field} = {demangled(name)},\n" for field, name in roots.items())
    return f"""{NOTICE.format(source=source.name, version=version)}{code}
#include "hgmcore/library.h"

const hgm_engine hgm_engine_{engine.name} = {{
\t.abi = HGM_ABI, .size = sizeof(hgm_engine), .core_size = sizeof(struct hgm_core),
\t.flags = {flags_text(engine)},
\t.name = "{engine.name}",
\t.options = {options_text(engine)},
{members}}};
"""


def c_name(name: str) -> str:
    return re.sub(r"\W", "_", name)


def geometries_text() -> str:
    """The geometries of real architectures, and hgm_geometry_find()."""
    out = []
    for name in geometry.FULL_SIZE:
        one = geometry.GEOMETRIES[name]
        leaves = ", ".join(f"{{{leaf.shift}, {leaf.level}, {leaf.entries}}}" for leaf in one.leaves)
        out.append(f'const hgm_geometry hgm_geometry_{c_name(name)} = {{"{name}", {one.base_shift}, {one.index_bits}, '
                   f"{one.levels}, {len(one.leaves)}, {{{leaves}}}}};\n")
    return "".join(out)


def find_text(kind: str, names) -> str:
    """hgm_KIND_find(name): one of them, or NULL."""
    table = ", ".join(f"&hgm_{kind}_{c_name(name)}" for name in names)
    return f"""
const hgm_{kind} *hgm_{kind}_find(const char *name)
{{
\tstatic const hgm_{kind} *const all[] = {{{table}}};
\tsize_t i;

\tfor (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
\t\tif (strcmp(all[i]->name, name) == 0)
\t\t\treturn all[i];
\treturn NULL;
}}
"""


def header_text(names, version: str) -> str:
    """hgmcore.h: all that a program includes."""
    lines = [NOTICE.format(source="the schemes and geometries", version=version) + "#ifndef HGMCORE_H",
             "#define HGMCORE_H", "", '#include "hgmcore/library.h"', "", "#ifdef __cplusplus", 'extern "C" {',
             "#endif", "",
             "/* The schemes and geometries, by variable and by name; find returns NULL where there is none. */"]
    lines += [f"extern const hgm_engine hgm_engine_{name};" for name in names]
    lines += [f"extern const hgm_geometry hgm_geometry_{c_name(name)};" for name in geometry.FULL_SIZE]
    lines += ["const hgm_engine *hgm_engine_find(const char *name);",
              "const hgm_geometry *hgm_geometry_find(const char *name);", "", "#ifdef __cplusplus", "}", "#endif",
              "#endif"]
    return "\n".join(lines) + "\n"


MAKEFILE = """\
# Written by `hgmcore export-c`. make gives libhgm.a and libhgm.so; CC, CFLAGS and AR are as usual, also for another
# processor than this one.
CC ?= cc
AR ?= ar
CFLAGS ?= -O3
# alignment and growth: what the Python package is compiled with, for the loops over base pages
HGM_CFLAGS = -std=gnu11 -D_GNU_SOURCE -fPIC -fvisibility=default -Iinclude -Wno-attributes -Wno-unused-const-variable \\
\t$(shell printf 'int x;' | $(CC) -falign-loops=32 --param=inline-unit-growth=200 -x c -c -o /dev/null - 2>/dev/null \\
\t\t&& echo -falign-loops=32 --param=inline-unit-growth=200)
OBJECTS = library.o tables.o {objects}

all: libhgm.a libhgm.so

libhgm.a: $(OBJECTS)
\trm -f $@
\t$(AR) rcs $@ $(OBJECTS)

libhgm.so: $(OBJECTS)
\t$(CC) -shared -o $@ $(OBJECTS) $(LDFLAGS)

%.o: %.c $(wildcard include/*.h include/hgmcore/*.h)
\t$(CC) $(HGM_CFLAGS) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

clean:
\trm -f $(OBJECTS) libhgm.a libhgm.so

.PHONY: all clean
"""


def _built_in_text(name: str, version: str) -> str:
    return scheme_text(schemes.load(name), PACKAGE / f"schemes/{name}.pyx", version)


def export(directory, names=None, version: str = "", progress=lambda name: None) -> list[str]:
    """Write the core as C sources into a directory, which is made; returns the names of the files.

    names: of the schemes to write, built-in ones; None: all. ValueError: there is no such scheme. ImportError: there is
    no Cython. OSError: the directory cannot be written.
    """
    names = list(schemes.NAMES if names is None else names)
    for name in names:
        if name not in schemes.NAMES:
            schemes.load(name)
            raise ValueError(f"scheme '{name}' is not built in: export-c has the sources of {', '.join(schemes.NAMES)}")
    target = Path(directory)
    (target / "include/hgmcore").mkdir(parents=True, exist_ok=True)
    written: dict[str, Callable[[], str]] = {
        f"scheme_{name}.c": functools.partial(_built_in_text, name, version) for name in names}
    written["library.c"] = lambda: library_text(version)
    written["tables.c"] = lambda: (NOTICE.format(source="the schemes and geometries", version=version)
                                   + '#include <string.h>\n#include "hgmcore.h"\n\n' + geometries_text()
                                   + find_text("engine", names) + find_text("geometry", geometry.FULL_SIZE))
    written["include/hgmcore.h"] = lambda: header_text(names, version)
    written["Makefile"] = lambda: MAKEFILE.format(objects=" ".join(f"scheme_{name}.o" for name in names))
    for name, text in written.items():
        progress(name)
        (target / name).write_text(text(), encoding="utf-8")
    for name in HEADERS:
        shutil.copyfile(PACKAGE / "include/hgmcore" / name, target / "include/hgmcore" / name)
    return [*written, *(f"include/hgmcore/{name}" for name in HEADERS)]


def library_text(version: str) -> str:
    """The functions of library.h as a C file."""
    from hgmcore.doors import functions

    roots = {mangled(f"core.library.{name}") for name, _, _ in functions()}
    return (NOTICE.format(source="core/library.pyx", version=version)
            + plain(translated(PACKAGE / "core/library.pyx"), roots, public=True))
