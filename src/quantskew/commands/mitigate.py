"""`quantskew mitigate`: methods compared on an experiment."""

from pathlib import Path

from quantskew.commands.options import add_experiment, add_seeds, comma_separated, over_seeds
from quantskew.experiments import methods
from quantskew.experiments.methods import METHODS
from quantskew.experiments.runs import write
from quantskew.report import write_comparison


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser(
        "mitigate",
        help="run mitigation methods on an experiment and compare them",
        description="Train, quantize and audit an experiment under mitigation methods. Writes the Audit of "
        "each method and seed, and their comparison (CSV and PNG). What is done already is not done again.",
    )
    add_experiment(parser)
    parser.add_argument(
        "--methods",
        type=comma_separated,
        default=tuple(METHODS),
        metavar="M,M,...",
        help=f"of {', '.join(METHODS)} (default: all)",
    )
    parser.add_argument(
        "--start",
        metavar="FILE",
        help="weights of a float model (safetensors) that is then not trained here",
    )
    add_seeds(parser)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT-mitigated")
    parser.set_defaults(run=run)


def run(options):
    """Write an Audit for each method and seed, and print how they compare."""
    folder = options.output or Path("runs") / f"{options.experiment}-mitigated"
    for key in options.methods:
        methods.get(key)
    experiment, seeds, where = over_seeds(options)
    audits = {}
    for key, audit, path in write(
        experiment, folder, seeds, options.methods, start_from=options.start, **where
    ):
        audits.setdefault(methods.get(key).title, []).append(audit)
        print(path)
    table = write_comparison(audits, folder)
    print(table.pivot(index="method", columns=["measure", "precision"], values="value").round(3).to_string())
