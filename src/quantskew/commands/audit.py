"""`quantskew audit`: of an experiment, or of logits from anywhere."""

from pathlib import Path

import numpy as np

from quantskew.audits.audit import Audit
from quantskew.cache import provenance
from quantskew.commands.options import add_experiment, chosen_experiment, comma_separated
from quantskew.experiments import catalogue
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS, PRECISIONS, SCHEMES, Quantizer
from quantskew.report import summary, write_report


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser(
        "audit",
        help="audit an experiment, or logits from anywhere",
        description="Audit an experiment (trained first where it has to be), or logits that any two runtimes "
        "left in .npy files. Writes the Audit, every table (CSV) and every figure (PNG) into a folder.",
    )
    add_experiment(parser, optional=True)
    parser.add_argument(
        "--precisions",
        type=Quantizer.parse_list,
        default=DEFAULT_PRECISIONS,
        metavar="P,P,...",
        help=f"of {', '.join(PRECISIONS)}; the first is the reference (default: %(default)s)",
    )
    parser.add_argument("--scheme", default="banner", help=f"of {', '.join(SCHEMES)} (default: %(default)s)")
    parser.add_argument("--per-channel", action="store_true", help="one grid per output channel")
    parser.add_argument(
        "--fold-batchnorm", action="store_true", help="merge batch norm into convolutions first"
    )
    parser.add_argument("--boundary-precision", metavar="P", help="of the first and last layer, such as int8")
    parser.add_argument(
        "--activation-precision",
        metavar="P",
        help="of the activations too where weights are integers, such as int8; their ranges are those of "
        "256 training images (default: activations stay fp32)",
    )
    parser.add_argument(
        "--curvature", action="store_true", help="gradient norms, Hessian eigenvalues and traces too (slow)"
    )
    parser.add_argument(
        "--curvature-images", type=int, metavar="N", help="test images of each group for the Hessian (all)"
    )
    parser.add_argument(
        "--logits",
        action="append",
        metavar="NAME=FILE.npy",
        help="logits (samples x classes) of one precision or runtime; repeat, the reference first",
    )
    parser.add_argument("--labels", type=Path, metavar="FILE.npy", help="class id of each sample")
    parser.add_argument("--groups", type=Path, metavar="FILE.npy", help="group id or name of each sample")
    parser.add_argument(
        "--group-names", type=comma_separated, metavar="A,B,...", help="names of the group ids 0, 1, ..."
    )
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT or runs/logits"
    )
    parser.set_defaults(run=run)


def run(options):
    """Print the summary of the Audit, and write it with its tables and figures."""
    if options.logits:
        if options.experiment:
            raise ValueError("give an experiment or --logits, not both")
        audit, name = _audit_of_logits(options), "logits"
    elif options.experiment:
        audit, name = (
            catalogue.audit(
                chosen_experiment(options),
                Quantizer.each(
                    options.precisions,
                    scheme=options.scheme,
                    per_channel=options.per_channel,
                    fold_batchnorm=options.fold_batchnorm,
                    boundary_precision=options.boundary_precision,
                    activation_precision=options.activation_precision,
                ),
                data_dir=options.data_dir,
                device=options.device,
                download=options.download,
                curvature=options.curvature and (options.curvature_images or True),
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
