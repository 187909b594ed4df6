"""A scheme as a Python class: the base class, and the engine of one."""

from __future__ import annotations

import inspect
import weakref

from hgmcore.core.core import Engine
from hgmcore.own.callbacks import engine_at
from hgmcore.own.python import NEEDS, QUIRKS, Folio, Leaf, Reactions, Subtree
from hgmcore.own.texts import checked, word


class Scheme:
    """An accounting scheme: a class derived from this one, with a method for each reaction of scheme.h.

        class Twice(hgmcore.Scheme):
            '''Two for each leaf'''

            name = "twice"
            state = {"large": "_large_mapcount"}

            def leaf_install(self, leaf):
                leaf.map_add("_large_mapcount", 2)

            def leaf_remove(self, leaf):
                leaf.map_add("_large_mapcount", -2)

            def answer_folio(self, folio):
                return folio.word("_large_mapcount")

    Attributes that a class may set: name; needs, what the engine finds out or keeps for it (`hgmcore.own.NEEDS`);
    quirks, where its kernel behaves otherwise (`hgmcore.own.QUIRKS`); state, {"compound": "_entire_mapcount"}: words of
    struct page 1 that reports show; exceptions, {"page_counts_equal_truth": "definition"}: what it does not promise
    (`hgmcore check --help` has the properties), each "definition" or "fault"; defaults and posted, {option: value}.

    The docstring explains the scheme; its first line is the summary. `hgmcore.register(Twice)` gives it its name,
    `hgmcore.Machine(Twice)` runs it. All that a scheme remembers stands in struct pages (counts, or the word
    "private"): so snapshots are exact, and attributes of `self` cannot be set once it runs. A leaf, a subtree and a
    folio stand for something only while the method that got them runs. Where a method raises, the run ends at that
    record with a SchemeError that names scheme, reaction and record.
    """

    name: str = ""
    """The scheme's public name, a word; if left out, that of the class in lower case."""

    needs: tuple[str, ...] = ()
    """What the engine finds out or keeps for it, names of `hgmcore.own.NEEDS`. "tables" and "zaps" go without saying
    where the methods are there."""

    quirks: tuple[str, ...] = ()
    """Where its kernel behaves otherwise, names of `hgmcore.own.QUIRKS`."""

    state: dict[str, str] = {}
    """Words of struct page 1 that reports show, by the name that they use: {"compound": "_entire_mapcount"}."""

    defaults: dict[str, str] = {}
    """Options whose default differs from the general one."""

    posted: dict[str, str] = {}
    """Options that model=posted selects besides."""

    exceptions: dict[str, str] = {}
    """Properties that the scheme does not promise, each "definition" or "fault"."""

    def leaf_install(self, leaf: Leaf) -> int | None:
        """A leaf, or a run of them, became present. Answers KEEPS if the look-up's reference stays, and was counted by
        ref_add(); with the need "bit" also COUNTS if the subtree is counted with this leaf. None is 0."""
        raise NotImplementedError

    def leaf_remove(self, leaf: Leaf) -> None:
        """A present leaf, or a run of them, goes away."""
        raise NotImplementedError

    def table_add(self, subtree: Subtree) -> bool | None:
        """An hstate-level entry became a table. Answers True if the scheme counts the subtree with it."""

    def table_free(self, subtree: Subtree) -> None:
        """An hstate-level entry stops being a table: its subtree is freed."""

    def subtree_zapped(self, subtree: Subtree) -> bool | None:
        """An operation is through with removing leaves below one hstate-level entry. Answers True if the scheme took
        the subtree's count back."""

    def kill(self, folio: Folio) -> None:
        """From here on the folio's references have to be exact: it is about to leave the page cache, or to be split."""

    def page_mapcount(self, folio: Folio, page: int) -> int:
        """page_mapcount() of base page `page`; by default folio_mapcount()."""
        answer = self.answer_folio(folio)
        return answer if isinstance(answer, int) else answer["mapcount"]

    def answer_folio(self, folio: Folio) -> int | dict:
        """folio_mapcount(), or a dict of answers: mapcount, and where the scheme has a rule of its own refs, sharers,
        nr_file_mapped, mapped, maybe_shared (hgm_answer of hgm.h)."""
        raise NotImplementedError

    def __setattr__(self, name, value):
        if self in _engines:
            raise AttributeError(
                f"{name}: a scheme remembers nothing outside of struct pages while it runs, or snapshots "
                'would not be exact; folio.store("private", ..) is its own word'
            )
        super().__setattr__(name, value)


REACTIONS = (
    "leaf_install",
    "leaf_remove",
    "table_add",
    "table_free",
    "subtree_zapped",
    "kill",
    "page_mapcount",
    "answer_folio",
)
"""The methods of a scheme, as the functions of scheme.h are called."""

_engines: weakref.WeakKeyDictionary[object, Engine] = weakref.WeakKeyDictionary()


def engine_of(scheme: type[Scheme] | Scheme) -> Engine:
    """The engine of a class derived from Scheme, or of an instance of one; always the same for the same.

    ValueError, TypeError: what is wrong with it.
    """
    if scheme not in _engines:
        one = scheme() if isinstance(scheme, type) else scheme
        _engines[scheme] = engine = _made(one)
        _engines[one] = engine
    return _engines[scheme]


def _made(scheme):
    kind = type(scheme)
    name = word(scheme.name or kind.__name__.lower())
    where = f" '{name}'"
    for method in ("leaf_install", "leaf_remove", "answer_folio"):
        if getattr(kind, method) is getattr(Scheme, method):
            raise ValueError(f"scheme{where}: class {kind.__name__} has no method {method}")
    needs = [*_words(where, "needs", scheme.needs, NEEDS)]
    if kind.table_add is not Scheme.table_add or kind.table_free is not Scheme.table_free:
        needs.append("tables")
    if kind.subtree_zapped is not Scheme.subtree_zapped:
        needs.append("zaps")
    if kind.kill is not Scheme.kill:
        needs.append("kill")
    texts = {"name": name, "explanation": inspect.cleandoc(kind.__dict__.get("__doc__") or "")}
    for what in ("state", "defaults", "posted", "exceptions"):
        given = {key: str(value) for key, value in dict(getattr(scheme, what)).items()}
        texts[what] = " ".join(f"{key}={value}" for key, value in checked(where, what, given).items())
    quirks = _words(where, "quirks", scheme.quirks, QUIRKS)
    reactions = Reactions(scheme, texts, sum({NEEDS[need] for need in needs}), sum({QUIRKS[quirk] for quirk in quirks}))
    return engine_at(reactions.address, reactions, python=True)


def _words(where, what, given, known):
    """Names of needs or quirks, in a sequence. ValueError."""
    given = (given,) if isinstance(given, str) else tuple(given)
    for name in given:
        if name not in known:
            raise ValueError(f"scheme{where}: {what}: {name!r} is none of {', '.join(known)}")
    return given
