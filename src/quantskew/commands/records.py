"""`quantskew records`: the Audits that the chapters read."""

from pathlib import Path

from quantskew.commands.options import add_experiment, add_seeds, over_seeds
from quantskew.experiments.runs import BASE, write


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser(
        "records",
        help="make the book's records of an experiment, or go on with them",
        description="Write the Audits that the chapters read: the experiment with its curvature, every "
        "method of the book, quantized activations, the balanced set and its rotations. What is done already "
        "is not done again.",
    )
    add_experiment(parser)
    add_seeds(parser)
    parser.add_argument(
        "--output", type=Path, default=Path("book/records"), metavar="FOLDER", help="default: %(default)s"
    )
    parser.add_argument("--base-only", action="store_true", help="only PTQ of the experiment")
    parser.set_defaults(run=run)


def run(options):
    """Print the path of each record, as soon as it is there."""
    experiment, seeds, where = over_seeds(options)
    keys = [BASE] if options.base_only else None
    for _, _, path in write(experiment, options.output, seeds, keys, **where):
        print(path)
