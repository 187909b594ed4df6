"""A mutating fuzzer over every way in: traces of both forms, every importer, validate, the API.

    python tests/fuzz.py                          10,000 inputs of each target
    python tests/fuzz.py --inputs 1000000 --only text --seed 7

Each input is made from its number, so that `--seed N --inputs 1` makes it again. Inputs run in child processes: a crash
or a run longer than --seconds is reported with the number, as is every exception that callers are not told to expect.
Exit status 1 where something was found.
"""

import argparse
import faulthandler
import os
import random
import sys
import time
import traceback

from fuzzing import TARGETS

PORTION = 500  # inputs of one child


def child(target, first, count, seconds, pipe):
    """Feed inputs; write each one's number before it, and what went wrong behind it."""
    with os.fdopen(pipe, "w", buffering=1) as out:
        for number in range(first, first + count):
            print("n", number, file=out)
            faulthandler.dump_traceback_later(seconds, exit=True)
            try:
                TARGETS[target](random.Random(f"{target} {number}"))
            except Exception:
                print("e", number, repr(traceback.format_exc(limit=-6)), file=out)
            faulthandler.cancel_dump_traceback_later()
    os._exit(0)


def portion(target, first, count, seconds):
    """[(number, what went wrong)] of some inputs."""
    found, number = [], first
    while number < first + count:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            child(target, number, first + count - number, seconds, write)
        os.close(write)
        with os.fdopen(read) as lines:
            for kind, at, *text in (line.split(" ", 2) for line in lines):
                number = int(at)
                if kind == "e":
                    found.append((number, text[0].strip()))
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            what = f"signal {-status}" if status < 0 else f"more than {seconds} s, or exit status {status}"
            found.append((number, what))
        number += 1
        if not status:
            break
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target")
    parser.add_argument("--only", choices=TARGETS, action="append", help="a target; may be given more than once")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input")
    parser.add_argument("--seconds", type=float, default=20, help="that one input may take")
    given = parser.parse_args()
    faults = 0
    for target in given.only or TARGETS:
        start, done = time.monotonic(), 0
        while done < given.inputs:
            count = min(PORTION, given.inputs - done)
            for number, what in portion(target, given.seed + done, count, given.seconds):
                faults += 1
                print(f"{target}, input {number}: {what.encode().decode('unicode_escape', 'replace')}", flush=True)
            done += count
        rate = done / max(time.monotonic() - start, 1e-9)
        print(f"{target}: {done:,} inputs, {rate:,.0f} a second", flush=True)
    print(f"{faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
