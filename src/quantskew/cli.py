"""The command line: ``quantskew COMMAND``, where every command and option is documented."""

import argparse
import sys
from pathlib import Path

import numpy as np

from quantskew.audits.audit import Audit
from quantskew.base.files import write_bytes
from quantskew.base.provenance import provenance
from quantskew.claims import register
from quantskew.claims.evidence import made_evidence, recorded_evidence
from quantskew.claims.register import CLAIMS
from quantskew.learning.model_cache import model_path
from quantskew.quantization.quantizers import DEFAULT_PRECISIONS, PRECISIONS, SCHEMES
from quantskew.reports.claims_report import FORMATS, written
from quantskew.reports.report import summary, write_report
from quantskew.reports.tradeoff_report import write_comparison
from quantskew.studies import experiments, methods
from quantskew.studies.methods import METHODS
from quantskew.studies.record_sets import write_records, write_sets


def main(arguments=None):
    """Run one command; errors that a user can mend are one line on standard error and status 2."""
    arguments = sys.argv[1:] if arguments is None else arguments
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    parser = _parser()
    options = parser.parse_args(own)
    options.passed = arguments[len(own) + 1 :]
    if options.passed and options.run is not _sweep:
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

    listing = commands.add_parser("experiments", help="list the named experiments")
    listing.set_defaults(run=_experiments)

    train = commands.add_parser("train", help="train an experiment's model, or go on with it")
    _add_experiment(train)
    train.set_defaults(run=_train)

    audit = commands.add_parser(
        "audit",
        help="audit an experiment, or logits from anywhere",
        description="Audit an experiment (trained first where it has to be), or logits that any two runtimes "
        "left in .npy files. Writes the Audit, every table (CSV) and every figure (PNG) into a folder.",
    )
    _add_experiment(audit, optional=True)
    audit.add_argument(
        "--precisions",
        type=_names,
        default=DEFAULT_PRECISIONS,
        metavar="P,P,...",
        help=f"of {', '.join(PRECISIONS)}; the first is the reference (default: %(default)s)",
    )
    audit.add_argument("--scheme", default="banner", help=f"of {', '.join(SCHEMES)} (default: %(default)s)")
    audit.add_argument("--per-channel", action="store_true", help="one grid per output channel")
    audit.add_argument(
        "--fold-batchnorm", action="store_true", help="merge batch norm into convolutions first"
    )
    audit.add_argument("--boundary-precision", metavar="P", help="of the first and last layer, such as int8")
    audit.add_argument(
        "--activation-precision",
        metavar="P",
        help="of the activations too where weights are integers, such as int8; their ranges are those of "
        "256 training images (default: activations stay fp32)",
    )
    audit.add_argument(
        "--curvature", action="store_true", help="gradient norms, Hessian eigenvalues and traces too (slow)"
    )
    audit.add_argument(
        "--curvature-images", type=int, metavar="N", help="test images of each group for the Hessian (all)"
    )
    audit.add_argument(
        "--logits",
        action="append",
        metavar="NAME=FILE.npy",
        help="logits (samples x classes) of one precision or runtime; repeat, the reference first",
    )
    audit.add_argument("--labels", type=Path, metavar="FILE.npy", help="class id of each sample")
    audit.add_argument("--groups", type=Path, metavar="FILE.npy", help="group id or name of each sample")
    audit.add_argument(
        "--group-names", type=_names, metavar="A,B,...", help="names of the group ids 0, 1, ..."
    )
    audit.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT or runs/logits"
    )
    audit.set_defaults(run=_audit)

    mitigate = commands.add_parser(
        "mitigate",
        help="run mitigation methods on an experiment and compare them",
        description="Train, quantize and audit an experiment under mitigation methods. Writes the Audit of "
        "each method and seed, and their comparison (CSV and PNG). What is done already is not done again.",
    )
    _add_experiment(mitigate)
    mitigate.add_argument(
        "--methods",
        type=_names,
        default=tuple(METHODS),
        metavar="M,M,...",
        help=f"of {', '.join(METHODS)} (default: all)",
    )
    mitigate.add_argument(
        "--start",
        metavar="FILE",
        help="weights of a float model (safetensors) that is then not trained here",
    )
    _add_seeds(mitigate)
    mitigate.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT-mitigated")
    mitigate.set_defaults(run=_mitigate)

    judge = commands.add_parser(
        "claims",
        help="judge the paper's claims on an experiment, or on Audits of record",
        description="Train, quantize and audit what the claims need, and print a verdict on each. What is "
        "done already is not done again. A path of an Audit (FILE.safetensors, further seeds beside it as "
        "FILE-1.safetensors) is judged as it is.",
    )
    _add_experiment(judge)
    _add_seeds(judge, 3)
    judge.add_argument(
        "--claims", type=_names, default=tuple(CLAIMS), metavar="C,C,...", help="their keys (default: all)"
    )
    judge.add_argument(
        "--recorded", action="store_true", help="judge the records in book/records instead of making any"
    )
    judge.add_argument("--format", choices=FORMATS, default="text", help="default: text")
    judge.add_argument("--output", type=Path, metavar="FILE", help="default: standard output")
    judge.set_defaults(run=_claims)

    keep = commands.add_parser(
        "records",
        help="make the book's records of an experiment, or go on with them",
        description="Write the Audits that the chapters read: the experiment with its curvature, every "
        "method of the book, quantized activations, the balanced set and its rotations. What is done already "
        "is not done again.",
    )
    _add_experiment(keep)
    _add_seeds(keep)
    keep.add_argument(
        "--output", type=Path, default=Path("book/records"), metavar="FOLDER", help="default: %(default)s"
    )
    keep.add_argument("--base-only", action="store_true", help="only PTQ of the experiment")
    keep.set_defaults(run=_records)

    book = commands.add_parser("book", help="execute the book's chapters (run in the repository)")
    book.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the repository (default: .)"
    )
    book.add_argument(
        "-p",
        "--parameter",
        action="append",
        nargs=2,
        default=[],
        metavar=("NAME", "VALUE"),
        help="of the chapters, its value in YAML, such as -p scheme mse; repeat",
    )
    book.set_defaults(run=_book)

    sweep = commands.add_parser(
        "sweep",
        help="run a grid of chapters and audits, here or on a cluster (run in the repository)",
        description="Run the cells of a grid (YAML) with Snakemake, and gather their results in one table "
        "and one page. What is done already is not done again: after anything was killed, the same "
        "command goes on. Further options of Snakemake follow after --, such as -- --dry-run.",
    )
    sweep.add_argument("grid", type=Path, metavar="GRID.yml", help="which cells: see notebooks/grids")
    sweep.add_argument("--jobs", type=int, default=1, metavar="N", help="at once (default: %(default)s)")
    sweep.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/GRID")
    sweep.add_argument(
        "--executor", metavar="NAME", help="of Snakemake, such as slurm (default: this machine)"
    )
    sweep.add_argument(
        "--timeout", type=int, metavar="SECONDS", help="that one code cell of a chapter may take (900)"
    )
    sweep.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the repository (default: .)"
    )
    sweep.set_defaults(run=_sweep)
    return parser


def _add_experiment(parser, optional=False):
    parser.add_argument(
        "experiment",
        nargs="?" if optional else None,
        help=f"of {', '.join(experiments.EXPERIMENTS)}",
    )
    parser.add_argument("--data-dir", metavar="PATH", help="the data set's folder or archive")
    parser.add_argument("--download", action="store_true", help="fetch torchvision's data sets")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    parser.add_argument("--seed", type=int, help="of split, weights and training")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--model", help="small_resnet or any torchvision classifier")
    parser.add_argument("--size", type=int, help="pixels a side")
    parser.add_argument("--label", help="attribute to predict, where the data set has several")
    parser.add_argument("--group", help="attribute that makes the groups (folder: or a CSV file)")


def _add_seeds(parser, default=1):
    parser.add_argument(
        "--seeds",
        type=int,
        default=default,
        metavar="N",
        help="how many, from --seed on (default: %(default)s)",
    )


def _names(text):
    return tuple(name.strip() for name in text.split(","))


def _chosen(options):
    changes = {name: getattr(options, name) for name in ("seed", "epochs", "model", "size", "label", "group")}
    return experiments.get(options.experiment, **changes)


def _experiments(options):
    for experiment in experiments.EXPERIMENTS.values():
        recipe = experiment.recipe
        chosen = {"label": experiment.label, "group": experiment.group}
        named = "".join(f", {what} {name}" for what, name in chosen.items() if name)
        print(
            f"{experiment.name:17} {experiment.model} on {experiment.dataset}{named}, {recipe.epochs} epochs "
            f"of {recipe.optimizer} at {recipe.learning_rate}, batches of {recipe.batch_size}"
        )


def _train(options):
    experiment = _chosen(options)
    data = experiments.load_data(experiment, options.data_dir, options.download)
    _, record = experiments.trained(experiment, data, options.device)
    last = record["history"][-1]["validation"]
    print(f"trained in {record['seconds']:.0f} s; validation accuracy by group:")
    for name, accuracy in zip(data.group_names, last["accuracy"], strict=True):
        print(f"  {name:20} {accuracy:.3f}")
    print(f"model: {model_path(experiment.name, record['key'])}")


def _audit(options):
    if options.logits:
        if options.experiment:
            raise ValueError("give an experiment or --logits, not both")
        audit, name = _audit_of_logits(options), "logits"
    elif options.experiment:
        audit, name = (
            experiments.audit(
                _chosen(options),
                options.precisions,
                scheme=options.scheme,
                per_channel=options.per_channel,
                fold_batchnorm=options.fold_batchnorm,
                boundary_precision=options.boundary_precision,
                activation_precision=options.activation_precision,
                data_dir=options.data_dir,
                device=options.device,
                download=options.download,
                curvature=options.curvature,
                curvature_images=options.curvature_images,
            ),
            options.experiment,
        )
    else:
        raise ValueError("give an experiment or --logits NAME=FILE.npy --labels FILE.npy --groups FILE.npy")
    folder = options.output or Path("runs") / name
    print(summary(audit))
    written = write_report(audit, folder)
    print(f"\n{len(written)} files (Audit, tables, figures) in {folder}")


def _audit_of_logits(options):
    if options.labels is None or options.groups is None:
        raise ValueError("--logits needs --labels FILE.npy and --groups FILE.npy")
    logits = {}
    for entry in options.logits:
        name, separator, path = entry.partition("=")
        if not (name and separator and path):
            raise ValueError(f"--logits takes NAME=FILE.npy, such as int8=logits.npy; got {entry!r}")
        if name in logits:
            raise ValueError(f"--logits names {name} twice")
        logits[name] = _load_array(path)
    return Audit.from_logits(
        logits,
        _load_array(options.labels),
        _load_array(options.groups),
        options.group_names,
        provenance=provenance(source="logits"),
    )


def _load_array(path):
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not an array that numpy.save wrote without pickling ({error})"
        ) from error


def _mitigate(options):
    folder = options.output or Path("runs") / f"{options.experiment}-mitigated"
    for key in options.methods:
        methods.get(key)
    experiment, seeds, where = _over_seeds(options)
    audits = {}
    for key, audit, path in write_sets(
        experiment, folder, options.methods, seeds, start_from=options.start, **where
    ):
        audits.setdefault(methods.get(key).title, []).append(audit)
        print(path)
    table = write_comparison(audits, folder)
    print(table.pivot(index="method", columns=["measure", "precision"], values="value").round(3).to_string())


def _claims(options):
    chosen = [register.get(key) for key in options.claims]
    if options.recorded or options.experiment.endswith(".safetensors"):
        found = recorded_evidence(options.experiment, chosen)
    else:
        experiment, seeds, where = _over_seeds(options)
        found = made_evidence(experiment, chosen, seeds, **where)
    text = written(register.judged(found, options.claims), options.format) + "\n"
    if options.output:
        write_bytes(options.output, text.encode())
    else:
        print(text, end="")


def _records(options):
    experiment, seeds, where = _over_seeds(options)
    for path in write_records(experiment, options.output, seeds, base_only=options.base_only, **where):
        print(path)


def _over_seeds(options):
    """Experiment, seeds, and where images and device are; images are fetched if that is asked for."""
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1; got {options.seeds}")
    experiment, first = _chosen(options), options.seed or 0
    if options.download:
        experiments.load_data(experiment, options.data_dir, download=True)
    where = {"data_dir": options.data_dir, "device": options.device}
    return experiment, range(first, first + options.seeds), where


def _book(options):
    # Only this command needs the book's own packages.
    import yaml

    from quantskew.pages import chapters

    parameters = {name: yaml.safe_load(value) for name, value in options.parameter}
    for chapter in chapters.build(options.root, parameters):
        print(chapter)


def _sweep(options):
    # Only this command needs Snakemake and the book's own packages.
    from quantskew.sweeps.sweep import DRY_RUN, run_sweep
    from quantskew.sweeps.sweep_page import write_page
    from quantskew.sweeps.sweep_table import gather

    folder = options.output or Path("runs") / options.grid.stem
    failed = run_sweep(
        options.grid,
        folder,
        options.jobs,
        options.root,
        options.executor,
        options.timeout,
        options.passed,
    )
    for name, error in failed.items():
        print(f"failed: {name}: {error}\n    log: {folder / 'cells' / name / 'log.txt'}", file=sys.stderr)
    if DRY_RUN & set(options.passed):
        return 0
    print(f"the table: {folder / 'table.parquet'} and {folder / 'table.csv'}")
    if not gather(folder).empty:
        try:
            print(f"the page: {write_page(folder, options.root)}")
        except FileNotFoundError as error:
            # Audits can be swept anywhere.
            print(f"no page: {error}")
    return 1 if failed else 0
