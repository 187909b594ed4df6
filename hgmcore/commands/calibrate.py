"""`hgmcore calibrate`: what single events cost on this machine."""

import click

from hgmcore.commands.common import DIFFERENT, OK, command, json_option, output_file, progress, write_json
from hgmcore.files import write_file
from hgmcore.model.calibrate import calibrate as run_calibrate
from hgmcore.model.calibrate import profile_of
from hgmcore.model.profile import to_toml
from hgmcore.report.calibrate import calibration_json, calibration_text


@command(epilog="""
\b
Examples
  hgmcore calibrate
  hgmcore calibrate -o mine.toml && hgmcore compare --profile mine.toml
""")
@click.option("-o", "--output", metavar="FILE", callback=output_file(".toml"),
              help="Write the profile, for `compare --profile`.")
@click.option("--name", default="here", show_default=True, metavar="WORD", help="The profile's name.")
@click.option("--kernel", "with_kernel", is_flag=True, help="Also time operations of the running kernel (root; as "
              "`validate --live`), so that whole operations can be priced.")
@click.option("--strict", is_flag=True, help="Exit status 1 if something was not measurable, or the check failed.")
@json_option
def calibrate(output, name, with_kernel, strict, json_file):
    """Measure what atomics, cache lines and page-table entries cost on this machine, in a few seconds.

    CPU time of one pinned thread; each value is a median with its 10th and 90th percentiles. What this machine cannot
    show is named with the reason and left out. The profile is checked against warm replays of the simulator, and says
    so where they do not agree.
    """
    if with_kernel:
        from hgmcore.kernel.live import conditions, costs

        conditions.check("calibrate --kernel")
    with progress(quiet=json_file == "-") as show:
        found = run_calibrate(progress=show)
    profile = profile_of(found, name)
    if with_kernel:
        profile = costs.with_kernel(profile)
    if output:
        write_file(output, to_toml(profile).encode())
    if json_file:
        write_json(json_file, calibration_json(found, profile))
    if json_file != "-":
        click.echo(calibration_text(found, profile), nl=False)
    return DIFFERENT if strict and (profile.not_measurable or found.gate.startswith("failed")) else OK
