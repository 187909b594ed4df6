"""The page of `hgmcore info`: what is in a trace."""

from hgmcore.report.prose import listed, wrapped
from hgmcore.report.table import MOST, count
from hgmcore.sizes import format_size
from hgmcore.trace.describe import describe


def info_text(trace):
    """What is in a trace."""
    facts = describe(trace)
    lines = wrapped(f"hgmcore trace: {trace.name}")
    pairs = [("geometry", facts["geometry"]), ("operations", count(facts["operations"]))]
    pairs += [(f"  {name}", count(number)) for name, number in facts["by_operation"].items()]
    pairs += [("files", count(len(facts["files"])))]
    pairs += [(f"  {f['name']}", f"{count(f['pages'])} x {format_size(f['page_size'])} {f['kind']}")
              for f in facts["files"][:MOST]]
    pairs += [("processes", _first(facts["processes"])), ("mappings", count(facts["mappings"])),
              ("threads", count(facts["threads"]))]
    pairs += [(key, value) for key, value in facts["provenance"].items()]
    return "\n".join([*lines, *listed(pairs)]) + "\n"


def _first(names):
    more = f", ... ({count(len(names))})" if len(names) > MOST else ""
    return (", ".join(names[:MOST]) or "none") + more
