"""`hgmcore profiles`: what events cost on named processors."""

import click

from hgmcore.commands.common import command, json_option, write_json
from hgmcore.model import profile
from hgmcore.report.profiles import profile_json, profile_text, profiles_text


@command(name="profiles", epilog="""
\b
Examples
  hgmcore profiles
  hgmcore profiles xeon-4210r
  hgmcore profiles mine.toml
  hgmcore compare --profile turin-vm
""")
@click.argument("name", required=False)
@json_option
def list_profiles(name, json_file):
    """List the profiles that `compare --profile` takes, or explain one, also of a file.

    A profile says what each class of event costs on a processor, with a 90 % interval, how the value was got (measured,
    cited, fitted, transferred, assumed) and from what.
    """
    found = [profile.load(one) for one in ([name] if name else profile.names())]
    if json_file:
        write_json(json_file, {"format": "hgmcore-profiles 1",
                               "profiles": {one.name: profile_json(one) for one in found}})
    if json_file != "-":
        click.echo(profile_text(found[0]) if name else profiles_text(found), nl=False)
