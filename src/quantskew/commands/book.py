"""`quantskew book`: the chapters, executed."""

from pathlib import Path


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser("book", help="execute the book's chapters (run in the repository)")
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the repository (default: .)"
    )
    parser.add_argument(
        "-p",
        "--parameter",
        action="append",
        nargs=2,
        default=[],
        metavar=("NAME", "VALUE"),
        help="of the chapters, its value in YAML, such as -p scheme mse; repeat",
    )
    parser.set_defaults(run=run)


def run(options):
    """Print the path of each chapter."""
    # Only this command needs the book's own packages.
    import yaml

    from quantskew.book import chapters

    parameters = {name: yaml.safe_load(value) for name, value in options.parameter}
    for chapter in chapters.build(options.root, parameters):
        print(chapter)
