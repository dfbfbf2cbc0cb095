"""`quantskew claims`: the paper judged on an experiment or on records."""

from pathlib import Path

from quantskew.cache import write_bytes
from quantskew.claims import register
from quantskew.claims.register import CLAIMS, needs
from quantskew.commands.options import add_experiment, add_seeds, comma_separated, over_seeds
from quantskew.experiments.runs import BASE, make, read
from quantskew.report import FORMATS, written


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser(
        "claims",
        help="judge the paper's claims on an experiment, or on Audits of record",
        description="Train, quantize and audit what the claims need, and print a verdict on each. What is "
        "done already is not done again. A path of an Audit (FILE.safetensors, further seeds beside it as "
        "FILE-1.safetensors) is judged as it is.",
    )
    add_experiment(parser)
    add_seeds(parser, 3)
    parser.add_argument(
        "--claims",
        type=comma_separated,
        default=tuple(CLAIMS),
        metavar="C,C,...",
        help="their keys (default: all)",
    )
    parser.add_argument(
        "--recorded", action="store_true", help="judge the records in book/records instead of making any"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    parser.set_defaults(run=run)


def run(options):
    """Print or write the verdicts."""
    chosen = [register.get(key) for key in options.claims]
    if options.recorded or options.experiment.endswith(".safetensors"):
        found = read(options.experiment, [BASE, *needs(chosen)])
    else:
        experiment, seeds, where = over_seeds(options)
        curvature = any(claim.curvature for claim in chosen)
        found = make(experiment, needs(chosen), seeds, curvature=curvature, **where)
    text = written(register.judged(found, options.claims), options.format) + "\n"
    if options.output:
        write_bytes(options.output, text.encode())
    else:
        print(text, end="")
