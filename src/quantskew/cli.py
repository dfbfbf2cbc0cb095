"""The command line: ``quantskew COMMAND``, where every command and option is documented.

A command is a function of its options.  What is heavy is imported inside it, so that help is there at once.
"""

import argparse
import errno
import itertools
import logging
import os
import re
import shlex
import sys
import traceback
from pathlib import Path

from quantskew.cache import cache_dir
from quantskew.checks import MOST_SEED, MOST_SEEDS, check_folder, check_whole, shortened, some
from quantskew.experiments.experiment import EXPERIMENTS, get
from quantskew.experiments.methods import METHODS
from quantskew.quantization.quantizer import CALIBRATED, DEFAULT_PRECISIONS, PRECISIONS, SCHEMES, Quantizer

_COMMANDS = []
_SCHEMES = ", ".join((*SCHEMES, *CALIBRATED))
# The least and the largest number that an option takes, and what to do where a file cannot be used.
_COUNTS = {"seed": (0, MOST_SEED), "seeds": (1, MOST_SEEDS), "epochs": (1, 10**6), "size": (1, 2048)}
_COUNTS |= {"curvature_images": (1, 10**7), "jobs": (1, 10**4), "timeout": (1, 10**7)}
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space; the same command goes on"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "name another place, or ask for the right to use it"),
    errno.EROFS: "name another place (the cache with QUANTSKEW_CACHE)",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "close some files, or raise the limit with ulimit -n",
}
_DEBUG = "QUANTSKEW_DEBUG"
_LONGEST_VALUE = 10_000


def main(arguments=None):
    """Run one command; every error is one line on standard error and status 2.

    An interruption is status 130, and a reader that has gone away 141.  With `QUANTSKEW_DEBUG=1` errors have
    their traceback too.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    parser = argparse.ArgumentParser(
        prog="quantskew", description="See, check and use how quantization disparately skews a model."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, about, declared in _COMMANDS:
        command = commands.add_parser(run.__name__, **about)
        command.set_defaults(run=run)
        for names, settings in declared:
            command.add_argument(*names, **settings)
    options = parser.parse_args(own)
    options.passed = arguments[len(own) + 1 :]
    if options.passed and options.run is not sweep:
        parser.error(f"only sweep takes options after --; got {' '.join(options.passed)}")
    # The package says what it takes from the cache; a page of the book does not.
    logger, handler = logging.getLogger("quantskew"), logging.StreamHandler()
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        _check_options(options)
        status = options.run(options) or 0
        # Here, where a pipe that is closed can still be told from other errors.
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        # Python would write what is left once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except KeyboardInterrupt:
        print("quantskew: interrupted; the same command goes on", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        print(f"quantskew: {_said(error, arguments)}", file=sys.stderr)
        return 2
    finally:
        logger.removeHandler(handler)


def _said(error, arguments):
    """An error in one sentence, with what was being done where the error does not say it."""
    known = (ValueError, FileNotFoundError, RuntimeError)
    if isinstance(error, OSError) and error.strerror:
        path = f"{error.filename}: " if error.filename is not None else ""
        remedy = f"; {_REMEDIES.get(error.errno, 'name a place that is there and can be used')}"
        own = "" if "; " in error.strerror else remedy
        return f"{path}{error.strerror} (in `{_shown(arguments)}`){own}"
    if isinstance(error, known) and str(error):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory in `{_shown(arguments)}`; choose a smaller model, --size or --jobs"
    if type(error).__name__ == "SafetensorError":
        return f"a file is damaged ({error}, in `{_shown(arguments)}`); remove it, or make it again"
    first = (str(error).splitlines() or [""])[0]
    return (
        f"unexpected {type(error).__name__}: {first[:200]} (in `{_shown(arguments)}`); this is a fault of "
        f"quantskew: please report it with the traceback that {_DEBUG}=1 shows"
    )


def _shown(arguments):
    words = shlex.join(["quantskew", *map(str, arguments)])
    return words if len(words) <= 100 else f"{words[:97]}..."


def _check_options(options):
    """Refuse numbers out of range, and places that cannot be written, before any work."""
    for name, (least, most) in _COUNTS.items():
        if getattr(options, name, None) is not None:
            check_whole(f"--{name.replace('_', '-')}", getattr(options, name), least, most)
    if hasattr(options, "output"):
        output = options.output
        if options.run in (claims, allocate) and output:
            if output.is_dir():
                raise ValueError(f"--output {output} is a folder; name a file")
            check_folder(output.parent, "the folder of --output", "name another --output")
        elif options.run not in (claims, allocate):
            check_folder(output or "runs", "the output folder", "name another --output")
    for name in ("junit", "report"):
        if getattr(options, name, None):
            check_folder(getattr(options, name).parent, f"the folder of --{name}", "name another file")
    if hasattr(options, "data_dir") or options.run in (book, sweep):
        check_folder(cache_dir(), "the cache", "name a folder with QUANTSKEW_CACHE")
    if hasattr(options, "root") and not options.root.is_dir():
        raise ValueError(f"--root {options.root} is no folder; name the repository")


def _command(summary, *declared, description=None):
    """Make a function the command of its name, with what help says of it and its options."""

    def add(run):
        _COMMANDS.append((run, {"help": summary, "description": description}, declared))
        return run

    return add


def _option(*names, **settings):
    return names, settings


def _experiment(**settings):
    """Which experiment, and with which changes."""
    return (
        _option("experiment", help=f"of {', '.join(EXPERIMENTS)}", **settings),
        _option("--data-dir", metavar="PATH", help="the data set's folder or archive"),
        _option("--download", action="store_true", help="fetch torchvision's data sets"),
        _option("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)"),
        _option("--seed", type=int, help="of split, weights and training"),
        _option("--epochs", type=int),
        _option("--model", help="small_resnet or any torchvision classifier"),
        _option("--size", type=int, help="pixels a side"),
        _option("--label", help="attribute to predict, where the data set has several"),
        _option("--group", help="attribute that makes the groups (folder: or a CSV file)"),
    )


def _seeds(default):
    """How many seeds, and how many at once."""
    words = "how many, from --seed on (default: %(default)s)"
    jobs = "seeds at once, each with its share of the threads; what others were trained on is trained again "
    return (
        _option("--seeds", type=int, default=default, metavar="N", help=words),
        _option("--jobs", type=int, default=1, metavar="N", help=f"{jobs}(default: %(default)s)"),
    )


def _names(text):
    """Names in one argument, separated by commas."""
    return tuple(name.strip() for name in text.split(","))


def _chosen(options):
    """The experiment that options name, with what they change."""
    changes = {name: getattr(options, name) for name in ("seed", "epochs", "model", "size", "label", "group")}
    return get(options.experiment, **changes)


def _over_seeds(options):
    """Experiment, seeds, and where images and device are; images are fetched if that is asked for."""
    from quantskew.experiments.catalogue import check, load_data

    experiment, first = _chosen(options), options.seed or 0
    check_whole("the last seed", first + options.seeds - 1, 0, MOST_SEED)
    check(experiment, None if options.download else options.data_dir, options.device)
    if options.download:
        load_data(experiment, options.data_dir, download=True)
    where = {"data_dir": options.data_dir, "device": options.device}
    return experiment, range(first, first + options.seeds), where


@_command("list the named experiments")
def experiments(options):
    """Print a line for each experiment."""
    for experiment in EXPERIMENTS.values():
        recipe = experiment.recipe
        chosen = {"label": experiment.label, "group": experiment.group}
        named = "".join(f", {what} {name}" for what, name in chosen.items() if name)
        print(
            f"{experiment.name:17} {experiment.model} on {experiment.dataset}{named}, {recipe.epochs} epochs "
            f"of {recipe.optimizer} at {recipe.learning_rate}, batches of {recipe.batch_size}"
        )


@_command("train an experiment's model, or go on with it", *_experiment())
def train(options):
    """Print what the model reaches on each group, and where it is kept."""
    from quantskew.experiments.catalogue import check, load_data, trained
    from quantskew.training.checkpoint import model_path

    experiment = _chosen(options)
    check(experiment, None if options.download else options.data_dir, options.device)
    data = load_data(experiment, options.data_dir, options.download)
    _, record = trained(experiment, data, options.device)
    last = record["history"][-1]["validation"]
    print(f"trained in {record['seconds']:.0f} s; validation accuracy by group:")
    for name, accuracy in zip(data.group_names, last["accuracy"], strict=True):
        print(f"  {name:20} {accuracy:.3f}")
    print(f"model: {model_path(experiment.name, record['key'])}")


_CONDITION = (
    'such as "fvo_change > 0.02" or "accuracy_change[worst] < -0.01 at int8", or a file with one a line: '
    "status 1 where one is met; repeat"
)
_GATE = (
    _option("--fail-if", action="append", default=[], metavar="CONDITION", help=_CONDITION),
    _option("--confidently", action="store_true", help="where the whole 95 %% interval meets it"),
    _option("--junit", type=Path, metavar="FILE", help="what became of the conditions as JUnit's XML"),
    _option("--annotations", action="store_true", help="and as annotations of GitHub"),
)


def _held_to(options, columns):
    """The conditions that an audit of these columns is held to; wrong ones are refused before it begins."""
    from quantskew.measures.gate import conditions

    if not options.fail_if and (options.confidently or options.junit or options.annotations):
        raise ValueError("--confidently, --junit and --annotations need --fail-if CONDITION")
    return conditions(options.fail_if, columns)


def _status(outcomes, options):
    """Say what became of the conditions: 1 if one was met."""
    from quantskew.files import write_bytes
    from quantskew.measures.gate import annotation, junit

    for outcome in outcomes:
        print(outcome.sentence, file=sys.stderr if outcome.failed else sys.stdout)
    if options.annotations:
        print(*map(annotation, outcomes), sep="\n")
    if options.junit:
        write_bytes(options.junit, junit(outcomes).encode())
    return int(any(outcome.failed for outcome in outcomes))


def _numbers(text):
    return tuple(map(float, text.split(",")))


_OF_IMAGES = {
    "mean": {"type": _numbers, "metavar": "M,...", "help": "taken off, one or one a channel"},
    "std": {"type": _numbers, "metavar": "S,...", "help": "divided by, one or one a channel"},
    "channels": {"help": "rgb, bgr or grey (default: rgb)"},
    "range": {"help": "of values before the mean is taken off: 0-1 or 0-255 (default: 0-1)"},
    "resize": {"type": int, "help": "the shorter side, before a crop to --size (default: no crop)"},
    "interpolation": {"help": "such as bicubic (default: bilinear)"},
    "preprocessing": {"metavar": "FILE", "help": "JSON or TOML of these and size, classes, accuracy"},
    "accuracy": {"type": float, "metavar": "A", "help": "that the model is known to have"},
}
_OWN = (
    _option("--test", type=Path, metavar="CSV|FOLDER", help="test images: file, label, groups; or a folder"),
    _option("--image-root", type=Path, metavar="FOLDER", help="of the files in --test (default: its folder)"),
    _option("--arch", help="of a checkpoint: torchvision:NAME, timm:NAME or package.module:function"),
    _option("--classes", metavar="A,B,...|FILE", help="names in the order of the logits"),
    *(_option(f"--{name}", **settings) for name, settings in _OF_IMAGES.items()),
)


@_command(
    "audit an experiment, a model of your own, or logits from anywhere",
    *_experiment(nargs="?"),
    *_OWN,
    _option("--calibration", type=Path, metavar="CSV|FOLDER", help="other images, for ranges of activations"),
    _option(
        "--precisions",
        type=Quantizer.parse_list,
        default=DEFAULT_PRECISIONS,
        metavar="P,P,...",
        help=f"of {', '.join(PRECISIONS)}, and runtimes: ort:fp32, ort:dynamic-int8, ort:static-int8, "
        "torchao:int8, torchao:int4, torchao:int8-dynamic; the first is the reference (default: %(default)s)",
    ),
    _option("--scheme", default="banner", help=f"of {_SCHEMES} (default: %(default)s)"),
    _option("--per-channel", action="store_true", help="one grid per output channel"),
    _option("--fold-batchnorm", action="store_true", help="merge batch norm into convolutions first"),
    _option("--boundary-precision", metavar="P", help="of the first and last layer, such as int8"),
    _option(
        "--activation-precision",
        metavar="P",
        help="of the activations too where weights are integers, such as int8; their ranges are those of "
        "256 training images (default: activations stay fp32)",
    ),
    _option(
        "--curvature", action="store_true", help="gradient norms, Hessian eigenvalues and traces too (slow)"
    ),
    _option(
        "--curvature-images", type=int, metavar="N", help="test images of each group for the Hessian (all)"
    ),
    _option(
        "--logits",
        action="extend",
        nargs="+",
        metavar="NAME=FILE.npy",
        help="logits (samples x classes) of one precision or runtime, the reference first, or files that "
        "`quantskew logits` wrote (FILE.npz), which have labels and groups; with --test those of a CSV file",
    ),
    _option("--labels", type=Path, metavar="FILE.npy", help="class id of each sample"),
    _option("--groups", type=Path, metavar="FILE.npy", help="group id or name of each sample"),
    _option("--group-names", type=_names, metavar="A,B,...", help="names of the group ids 0, 1, ..."),
    _option("--train-counts", type=_names, metavar="N,N,...", help="training samples of each group"),
    *_GATE,
    _option(
        "--report", type=Path, metavar="FILE", help="a page to send on: HTML, or Markdown if it ends in .md"
    ),
    _option("--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT or runs/logits"),
    description="Audit an experiment (trained first where it has to be), the model in a file (with --test: "
    "a torch.export program, ONNX, TorchScript, or a checkpoint with --arch), or logits that any two "
    "runtimes left in files. Writes the Audit, every table (CSV) and every figure (PNG) into a folder; of "
    "several group columns, and of their intersections, into a folder each.",
)
def audit(options):
    """Print the summary of the Audit, and write it with its tables and figures."""
    from quantskew.audits.runtimes import RUNTIMES
    from quantskew.experiments import catalogue
    from quantskew.measures.gate import decide
    from quantskew.report import summary, write_page, write_report

    if options.logits and options.experiment:
        raise ValueError("give an experiment or --logits, not both")
    columns = [name for name, _ in map(_entry, options.logits or ())]
    if not columns:
        chosen = ("scheme", "per_channel", "fold_batchnorm", "boundary_precision", "activation_precision")
        runtimes = [name for name in options.precisions if name in RUNTIMES]
        named = [name for name in options.precisions if name not in RUNTIMES]
        quantizers = Quantizer.each(named, **{name: getattr(options, name) for name in chosen})
        columns = [*(own.name for own in quantizers), *runtimes]
    held_to = _held_to(options, columns)
    if options.logits:
        audits = _audits_of_logits(options)
    elif options.experiment and options.test:
        audits = _audits_of_file(options, quantizers, calibration=options.calibration, runtimes=runtimes)
    elif options.experiment:
        if options.experiment not in EXPERIMENTS and Path(options.experiment).exists():
            raise ValueError(f"{options.experiment} is a file: give test images with --test (CSV or folder)")
        where = {name: getattr(options, name) for name in ("data_dir", "device", "download")}
        where["curvature"] = options.curvature and (options.curvature_images or True)
        audits = {"": catalogue.audit(_chosen(options), quantizers, runtimes=runtimes, **where)}
    else:
        raise ValueError("give an experiment or --logits NAME=FILE.npy --labels FILE.npy --groups FILE.npy")
    missing = next(iter(audits.values())).provenance.get("runtimes_left_out", {})
    if held_to and missing:
        raise ValueError(f"the conditions cannot be decided: {'; '.join(missing.values())}")
    folder = options.output or Path("runs") / Path(options.experiment or "logits").stem
    _tell(audits)
    for name, made in audits.items():
        own = re.sub(r"[^\w.-]+", "-", name) if len(audits) > 1 else ""
        print(f"\n{name}\n{'=' * len(name)}\n" if own else "", summary(made), sep="")
        print(f"\n{len(write_report(made, folder / own))} files (Audit, tables, figures) in {folder / own}")
        if options.report:
            page = options.report
            write_page(made, page.with_stem(f"{page.stem}-{own}") if own else page)
    decided = itertools.product(held_to, audits.values())
    return _status([decide(condition, made, options.confidently) for condition, made in decided], options)


def _tell(audits):
    """Say how the model was fed, and what speaks against it, before any number."""
    facts = next(iter(audits.values())).provenance
    lines = [f"{what}: {facts[what]}" for what in ("model", "preprocessing", "classes") if what in facts]
    # The left out of an experiment are a number, which was said when it was loaded.
    left_out = facts["left_out"] if "samples" in facts else {}
    lines += [f"left out: {shortened(name)} ({reason})" for name, reason in left_out.items()]
    for line in lines + [f"WARNING: {warning}" for warning in facts.get("warnings", ())]:
        print(line)


def _audits_of_file(options, quantizers=("fp32",), **more):
    """The Audits of the model in a file by group column."""
    from quantskew.audits.shipped import audit_file
    from quantskew.datasets import listed

    samples = listed.read(options.test, options.image_root, options.group and _names(options.group))
    given = {name: getattr(options, name) for name in ("size", *_OF_IMAGES)} | {"classes": _classes(options)}
    given = {name: value for name, value in given.items() if value is not None}
    device = None if options.device == "auto" else options.device
    more |= {"arch": options.arch, "given": given, "device": device}
    return audit_file(options.experiment, samples, quantizers, **more)


def _classes(options):
    """Names of classes, in the argument or one a line in a file."""
    if options.classes and Path(options.classes).is_file():
        return tuple(Path(options.classes).read_text(encoding="utf-8").splitlines())
    return options.classes and _names(options.classes)


@_command(
    "write the logits of a model of your own to a file, for `quantskew audit --logits`",
    _option("experiment", metavar="MODEL", help="a file, as for `quantskew audit MODEL --test`"),
    *(own for own in _experiment() if own[0][0] in ("--size", "--group", "--device")),
    *_OWN,
    _option("--output", type=Path, default=Path("logits.npz"), metavar="FILE", help="default: %(default)s"),
)
def logits(options):
    """Write logits with the ids, labels and groups of their samples."""
    from quantskew.audits.shipped import write_logits

    audits = _audits_of_file(options)
    _tell(audits)
    write_logits(options.output, audits)
    print(f"logits: {options.output}")


def _entry(text):
    """The name and the path in NAME=FILE; a file that `quantskew logits` wrote names itself."""
    name, separator, path = text.partition("=")
    if not separator and text.endswith(".npz"):
        return Path(text).stem, text
    if not (name and separator and path):
        raise ValueError(f"--logits takes NAME=FILE.npy, such as int8=logits.npy; got {text!r}")
    return name, path


def _audits_of_logits(options):
    """The Audits of logits in files by group column."""
    from quantskew.audits import shipped
    from quantskew.audits.audit import Audit
    from quantskew.cache import provenance
    from quantskew.datasets import listed

    paths = {}
    for name, path in map(_entry, options.logits):
        if name in paths:
            raise ValueError(f"--logits names {name} twice")
        paths[name] = path
    arrays = not any(Path(path).suffix == ".npz" for path in paths.values())
    if arrays and options.test is None and (options.labels is None or options.groups is None):
        raise ValueError("--logits needs --labels FILE.npy and --groups FILE.npy, or --test CSV")
    _check_memory(sum(Path(path).stat().st_size for path in paths.values() if Path(path).exists()))
    found, names = {name: _load_array(path) for name, path in paths.items()}, _classes(options)
    own = [isinstance(part, dict) for part in found.values()]
    if any(own) and not all(own):
        raise ValueError("--logits are all files that `quantskew logits` wrote, or none of them is")
    counts = options.train_counts and [int(n) if n.isdecimal() else n for n in options.train_counts]
    if all(own):
        found = shipped.in_one_order(found)
        first = next(iter(found.values()))
        names, labels = names or first["class_names"].tolist(), first["labels"]
        columns = {name[7:]: values for name, values in first.items() if name.startswith("groups/")}
        found = {name: part["logits"] for name, part in found.items()}
    elif options.test:
        samples = listed.read(options.test, chosen=options.group and _names(options.group), images=False)
        (labels, names), columns = shipped.class_ids(samples.labels, names), samples.columns
    else:
        labels, columns = _load_array(options.labels), {"": _load_array(options.groups)}
    (column, groups), *others = columns.items()
    facts = provenance(source="logits")
    made = Audit.from_logits(found, labels, groups, options.group_names, names, counts, provenance=facts)
    facts["warnings"] = shipped.strangers(made)
    return {column: made, **{name: made.regrouped(groups) for name, groups in others}}


def _check_memory(size):
    """Refuse logits of so many bytes that their audit does not fit into the machine's memory."""
    needed, memory = 3 * size, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise ValueError(
            f"the logits take {size / 2**30:,.1f} GB and their audit about {needed / 2**30:,.0f}, but this "
            f"machine has {memory / 2**30:,.0f}; audit fewer samples or precisions at a time"
        )


def _load_array(path):
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found:
            if {"logits", "ids", "labels"} <= {*found.files}:
                return dict(found)
            if len(found.files) != 1:
                raise ValueError(f"it holds {len(found.files)} arrays; save each to a file of its own")
            return found[found.files[0]]
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} does not exist") from None
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(
            f"{path} is not an array that numpy.save wrote without pickling ({error}); save it so, and names "
            "as .astype(str)"
        ) from error


@_command(
    "say how many test images a group needs to show a drop of accuracy",
    _option("--groups", type=_names, required=True, metavar="N,N,...", help="test images of each group"),
    _option("--detect", type=float, required=True, metavar="DROP", help="of accuracy, such as 0.03"),
    description="For McNemar's exact test at the 5 % level, corrected for the number of groups, where 1 % of "
    "the images flip to right and more by the drop to wrong.",
)
def plan(options):
    """Print what a group needs, and what groups of these sizes can show."""
    from quantskew.measures.harm import POWER, plan

    sizes = [int(size) if size.isdecimal() else size for size in options.groups]
    for size in sizes:
        check_whole("each of --groups", size, 1, 10**8)
    table = plan(sizes, options.detect)
    least, drop = table.pop("needed")[0], options.detect
    print(f"{least:,} images of a group show a drop of {drop:g} with a probability of {POWER}; those given:")
    print(table.to_string(index=False, float_format="{:.3f}".format))


@_command(
    "choose the bits of each layer within a budget",
    *_experiment(),
    _option("--mean-bits", type=float, required=True, metavar="B", help="of a weight, such as 3.5"),
    _option("--for", dest="goal", default="mean", help="mean, worst-group or fvo (default: %(default)s)"),
    _option("--quantizer", default="int4:mse", help="bits apart (default: %(default)s)"),
    _option("--output", type=Path, metavar="FILE", help="default: runs/EXPERIMENT-plan.json"),
    description="Measure what quantizing each layer alone does to each group on validation images, and give "
    "it 2, 3, 4, 6 or 8 bits for the least mean loss, the least loss of the worst group, or the least "
    "FVO. Writes the plan, which `mitigate --plan FILE` quantizes and trains by.",
)
def allocate(options):
    """Print the precisions of the layers, in their order, and where the plan is."""
    from quantskew.experiments.allocation import planned, write_plan

    where = {"data_dir": options.data_dir, "device": options.device, "download": options.download}
    budget = [options.mean_bits], [options.goal], options.quantizer
    (plan,) = planned(_chosen(options), *budget, **where).values()
    path = options.output or Path("runs") / f"{options.experiment}-plan.json"
    write_plan(path, plan)
    print(f"{', '.join(plan['plan'].values())}: {plan['spent_bits']:.2f} bits a weight, in {path}")


@_command(
    "quantize one layer of an experiment at a time, and all but one",
    *_experiment(),
    _option("--precision", default="int4", metavar="P", help="such as int4:mse (default: %(default)s)"),
    _option("--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT-layers"),
    description="Audit an experiment with the weights of each layer quantized alone, and of all layers but "
    "it. Writes the Audit, and what each layer changes of each group's loss and accuracy (CSV and PNG).",
)
def layers(options):
    """Print where what each layer changes is written."""
    from quantskew.experiments import catalogue
    from quantskew.report import write_layers

    where = {"data_dir": options.data_dir, "device": options.device, "download": options.download}
    made = catalogue.layer_audit(_chosen(options), options.precision, **where)
    for path in write_layers(made, options.output or Path("runs") / f"{options.experiment}-layers"):
        print(path)


@_command(
    "run mitigation methods on an experiment and compare them",
    *_experiment(),
    _option(
        "--methods",
        type=_names,
        default=tuple(METHODS),
        metavar="M,M,...",
        help=f"of {', '.join(METHODS)} (default: all)",
    ),
    _option(
        "--start", metavar="FILE", help="weights of a float model (safetensors) that is then not trained here"
    ),
    _option("--plan", metavar="FILE", help="bits of each layer, as `allocate` writes them"),
    *_seeds(1),
    _option("--output", type=Path, metavar="FOLDER", help="default: runs/EXPERIMENT-mitigated"),
    description="Train, quantize and audit an experiment under mitigation methods. Writes the Audit of "
    "each method and seed, and their comparison (CSV and PNG). What is done already is not done again.",
)
def mitigate(options):
    """Write an Audit for each method and seed, and print how they compare."""
    from quantskew.experiments import methods
    from quantskew.experiments.allocation import read_plan
    from quantskew.experiments.runs import ahead, write
    from quantskew.quantization.qat import QATOptions
    from quantskew.report import write_comparison

    folder = options.output or Path("runs") / f"{options.experiment}-mitigated"
    titles = {key: methods.get(key).title for key in options.methods}
    experiment, seeds, where = _over_seeds(options)
    if options.plan:
        plan = read_plan(options.plan)
        where |= {"precisions": ("fp32", plan["precision"]), "options": QATOptions(plan=plan["plan"])}
    chosen = {"seeds": seeds, "keys": options.methods, "start_from": options.start, **where}
    ahead(options.jobs, write, experiment, folder, **chosen)
    audits = {}
    for key, made, path in write(experiment, folder, **chosen):
        audits.setdefault(titles[key], []).append(made)
        print(path)
    table = write_comparison(audits, folder)
    print(table.pivot(index="method", columns=["measure", "precision"], values="value").round(3).to_string())


@_command(
    "judge the paper's claims on an experiment, or on Audits of record",
    *_experiment(),
    *_seeds(3),
    _option("--claims", type=_names, metavar="C,C,...", help="their keys (default: all of the paper's)"),
    _option(
        "--recorded", action="store_true", help="judge the records in book/records instead of making any"
    ),
    _option("--format", choices=("text", "csv", "json"), default="text", help="default: text"),
    _option("--output", type=Path, metavar="FILE", help="default: standard output"),
    description="Train, quantize and audit what the claims need, and print a verdict on each. What is "
    "done already is not done again. A path of an Audit (FILE.safetensors, further seeds beside it as "
    "FILE-1.safetensors) is judged as it is.",
)
def claims(options):
    """Print or write the verdicts."""
    from quantskew.audits.audit import quantizer_of
    from quantskew.claims import register
    from quantskew.experiments import runs
    from quantskew.files import write_bytes
    from quantskew.report import written

    keys = options.claims or tuple(register.CLAIMS)
    chosen = [register.get(key) for key in keys]
    if options.recorded or options.experiment.endswith(".safetensors"):
        found = runs.read(options.experiment, [runs.BASE, *register.needs(chosen)])
    else:
        experiment, seeds, where = _over_seeds(options)
        where |= {"seeds": seeds, "curvature": any(claim.curvature for claim in chosen)}
        runs.ahead(options.jobs, runs.make, experiment, register.needs(chosen), **where)
        found = runs.make(experiment, register.needs(chosen), **where)
    columns = [name for audit in found.get(runs.BASE, ())[:1] for name in audit.precisions[1:]]
    if columns and not any(quantizer_of(name).precision for name in columns):
        raise ValueError(
            f"no claim can be judged: all are on precisions such as int4, none of {some(columns)} is"
        )
    text = written(register.judged(found, keys), options.format) + "\n"
    if options.output:
        write_bytes(options.output, text.encode())
    else:
        print(text, end="")


@_command(
    "make the book's records of an experiment, or go on with them",
    *_experiment(),
    *_seeds(1),
    _option(
        "--output", type=Path, default=Path("book/records"), metavar="FOLDER", help="default: %(default)s"
    ),
    _option("--base-only", action="store_true", help="only PTQ of the experiment"),
    description="Write the Audits that the chapters read: the experiment with its curvature, every "
    "method of the book, quantized activations, the balanced set and its rotations. What is done already "
    "is not done again.",
)
def records(options):
    """Print the path of each record, as soon as it is there."""
    from quantskew.experiments.runs import BASE, ahead, write

    experiment, seeds, where = _over_seeds(options)
    where |= {"seeds": seeds, "keys": [BASE] if options.base_only else None}
    ahead(options.jobs, write, experiment, options.output, **where)
    for _, _, path in write(experiment, options.output, **where):
        print(path)


_ROOT = _option("--root", type=Path, default=Path(), metavar="FOLDER", help="the repository (default: .)")


@_command(
    "execute the book's chapters (run in the repository)",
    _ROOT,
    _option(
        "-p",
        "--parameter",
        action="append",
        nargs=2,
        default=[],
        metavar=("NAME", "VALUE"),
        help="of the chapters, its value in YAML, such as -p scheme mse; repeat",
    ),
)
def book(options):
    """Print the path of each chapter."""
    from quantskew.book import chapters

    parameters = {name: _yaml(name, value) for name, value in options.parameter}
    for chapter in chapters.build(options.root, parameters):
        print(chapter)


def _yaml(name, value):
    import yaml

    try:
        if len(value) > _LONGEST_VALUE:
            raise ValueError(f"more than {_LONGEST_VALUE} characters")
        return yaml.safe_load(value)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        problem = getattr(error, "problem", None) or (str(error).splitlines() or ["it cannot be read"])[0]
        told = f"-p {shortened(name)} is no value in YAML: {shortened(value)} ({problem})"
        raise ValueError(f"{told}; quote it, as in -p scheme '\"mse\"'") from None


@_command(
    "run a grid of chapters and audits, here or on a cluster (run in the repository)",
    _option("grid", type=Path, metavar="GRID.yml", help="which cells: see notebooks/grids"),
    _option("--jobs", type=int, default=1, metavar="N", help="at once (default: %(default)s)"),
    _option("--output", type=Path, metavar="FOLDER", help="default: runs/GRID"),
    _option("--executor", metavar="NAME", help="of Snakemake, such as slurm (default: this machine)"),
    _option("--timeout", type=int, metavar="SECONDS", help="that one code cell of a chapter may take (900)"),
    _ROOT,
    description="Run the cells of a grid (YAML) with Snakemake, and gather their results in one table "
    "and one page. What is done already is not done again: after anything was killed, the same "
    "command goes on. Further options of Snakemake follow after --, such as -- --dry-run.",
)
def sweep(options):
    """Print what has failed, and where the results are; 1 if anything failed."""
    from quantskew.sweeps.sweep import DRY_RUN, run_sweep, write_page
    from quantskew.sweeps.table import gather

    folder, passed = options.output or Path("runs") / options.grid.stem, options.passed
    where = options.jobs, options.root, options.executor, options.timeout
    failed = run_sweep(options.grid, folder, *where, passed)
    for name, error in failed.items():
        print(f"failed: {name}: {error}\n    log: {folder / 'cells' / name / 'log.txt'}", file=sys.stderr)
    if DRY_RUN & set(passed):
        return 0
    print(f"the table: {folder / 'table.parquet'} and {folder / 'table.csv'}")
    if not gather(folder).empty:
        try:
            print(f"the page: {write_page(folder, options.root)}")
        except FileNotFoundError as error:
            # Audits can be swept anywhere.
            print(f"no page: {error}")
    return 1 if failed else 0
