"""The command line: ``quantskew COMMAND``, where every command and option is documented."""

import argparse
import sys

from quantskew.commands import (
    audit,
    book,
    claims,
    experiments,
    mitigate,
    records,
    sweep,
    train,
)


def main(arguments=None):
    """Run one command; errors that a user can mend are one line on standard error and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    parser = _parser()
    options = parser.parse_args(own)
    options.passed = arguments[len(own) + 1 :]
    if options.passed and options.run is not sweep.run:
        parser.error(f"only sweep takes options after --; got {' '.join(options.passed)}")
    try:
        return options.run(options) or 0
    except (ValueError, FileNotFoundError, RuntimeError) as error:
        print(f"quantskew: {error}", file=sys.stderr)
        return 2


def _parser():
    parser = argparse.ArgumentParser(
        prog="quantskew", description="See, check and use how quantization disparately skews a model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (experiments, train, audit, mitigate, claims, records, book, sweep):
        command.add(commands)
    return parser
