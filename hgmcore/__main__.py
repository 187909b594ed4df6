"""Entry point of `hgmcore` and of `python -m hgmcore`: works, or says in one line what is missing."""

import signal
import sys

EXTRAS = ("click", "rich", "pyarrow", "matplotlib")


def main():
    """Run the command line on sys.argv; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing half-written stays
    try:
        from hgmcore.cli import run
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        reason = f"the command line needs {error.name}: pip install 'hgmcore[cli]'"
        print(f"hgmcore: error: {reason}", file=sys.stderr)
        return 2
    return run()


if __name__ == "__main__":
    sys.exit(main())
