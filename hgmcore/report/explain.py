"""The page of `hgmcore explain`: the shortest part of a trace that shows a scheme's first error, and its steps."""

from hgmcore.analysis.explain import KINDS
from hgmcore.report.prose import plural, wrapped
from hgmcore.report.step import step_text
from hgmcore.steps import replay_steps


def explain_text(result, scheme, options) -> str:
    """A result of `hgmcore.analysis.explain.explain` as text: the error, the trace, what each of its operations
    changes."""
    lines = wrapped(f"hgmcore explain: {result['input']} under {result['scheme']}")
    error = result["error"]
    if not result["tested"]:
        return "\n".join([*lines, "", *wrapped("Nothing was tested: no operation mapped or unmapped anything.")]) + "\n"
    if error is None:
        return "\n".join([*lines, "", *wrapped(
            f"Nothing is wrong at any observation, of: {', '.join(result['properties'])}. An error that comes and goes "
            f"between two of them is not seen.")]) + "\n"
    lines += ["", *wrapped(f"First error: {error['property']} ({error['meaning']}), {error['value']:,}, seen after "
                           f"operation {error['index']:,} of {result['operations_before']:,}. Of "
                           f"{result['scheme']}: {KINDS[error['kind']]}.")]
    short = "The shortest part" if result["shortest"] else "A part, not the shortest (time was over),"
    lines += wrapped(f"{short} that shows it has {plural(result['operations'], 'operation')}:")
    lines += ["", result["trace"]]
    text = "\n".join(lines)
    for step in replay_steps(result["trace"].splitlines(), scheme, **options):
        text += "\n" + step_text({result["scheme"]: step})
    return text
