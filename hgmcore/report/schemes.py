"""The pages of `hgmcore schemes`: all schemes in a line each, or one explained."""

from hgmcore.options import OPTIONS
from hgmcore.report.prose import WIDTH, blocks, listed, paragraphs, shortened, summary


def schemes_text(engines):
    """Every scheme in a line, and the options they take."""
    room = max(len(engine.name) for engine in engines) + 2
    names = [engine.name.ljust(room) + shortened(summary(engine.explanation), WIDTH - room)
             for engine in engines]
    return blocks(names, ["Options, the default first; a scheme may have its own default:"],
                 listed(options_explained()), ["`hgmcore schemes NAME` explains a scheme."])


def options_explained():
    """(option, values and meaning) pairs of every option; its default comes first."""
    return [(name, f"{'|'.join(option.values)}: {option.help}") for name, option in OPTIONS.items()]


def scheme_text(engine):
    """One scheme explained: its documentation, the words it keeps, its options, and whether HVO suits it."""
    hvo = ("no: it counts on struct pages that HVO gives back" if engine.writes_tails
           else "yes: it counts on the first struct pages only")
    pairs = [("state words", ", ".join(engine.state) or "none"), ("lives with HVO", hvo),
             ("own defaults", _settings(engine.defaults)), ("model=posted", _settings(engine.posted))]
    return blocks([engine.name], paragraphs(engine.explanation), listed(pairs))


def _settings(options):
    return ", ".join(f"{key}={value}" for key, value in options.items()) or "none; as the general defaults"
