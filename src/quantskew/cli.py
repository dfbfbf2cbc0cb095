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
from quantskew.experiments.experiment import EXPERIMENTS, OWN, class_names, get
from quantskew.experiments.methods import METHODS
from quantskew.files import write_bytes
from quantskew.quantization.quantizer import CALIBRATED, DEFAULT_PRECISIONS, PRECISIONS, SCHEMES, Quantizer

_COMMANDS = []
# The least and the largest number that an option takes, and what to do where a file cannot be used.
_COUNTS = {"seed": (0, MOST_SEED), "seeds": (1, MOST_SEEDS), "epochs": (1, 10**6), "size": (1, 2048)}
_COUNTS |= {"curvature_images": (1, 10**7), "jobs": (1, 10**4), "timeout": (1, 10**7)}
_REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space; the same command goes on"),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "name another place, or ask for the right to use it"),
    errno.EROFS: "name another place (the cache with QUANTSKEW_CACHE)",
    errno.EISDIR: "name a file",
    errno.ENOTDIR: "name a folder",
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
    parser = argparse.ArgumentParser("quantskew", description="See and check how quantization skews a model.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for run, declared in _COMMANDS:
        summary, _, more = (run.__doc__ or "").partition("\n")
        command = commands.add_parser(
            run.__name__, help=summary[:1].lower() + summary[1:-1], description=more
        )
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
        words = shlex.join(["quantskew", *map(str, arguments)])
        told = _said(error, words if len(words) <= 100 else f"{words[:97]}...")
        print(f"quantskew: {told}", file=sys.stderr)
        return 2
    finally:
        logger.removeHandler(handler)


def _said(error, command):
    """An error in one sentence, with what was being done where the error does not say it."""
    if isinstance(error, OSError) and error.strerror:
        path = f"{error.filename}: " if error.filename is not None else ""
        remedy = _REMEDIES.get(error.errno, "name a place that is there and can be used")
        return f"{path}{error.strerror} (in `{command}`)" + f"; {remedy}" * ("; " not in error.strerror)
    if isinstance(error, ValueError | FileNotFoundError | RuntimeError) and str(error):
        return str(error)
    if isinstance(error, MemoryError):
        return f"out of memory in `{command}`; choose a smaller model, --size or --jobs"
    if type(error).__name__ == "SafetensorError":
        return f"a file is damaged ({error}, in `{command}`); remove it, or make it again"
    what = f"unexpected {type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]} (in `{command}`)"
    return f"{what}; this is a fault of quantskew: please report it with the traceback that {_DEBUG}=1 shows"


def _check_options(options):
    """Refuse numbers out of range, and places that cannot be written, before any work."""
    for name, (least, most) in _COUNTS.items():
        if getattr(options, name, None) is not None:
            check_whole(f"--{name.replace('_', '-')}", getattr(options, name), least, most)
    given = {name: own for name, own in vars(options).items() if isinstance(own, Path)}
    if hasattr(options, "output") and options.run not in (claims, allocate, logits):
        check_folder(given.pop("output", "runs"), "the output folder", "name another --output")
    for name in ("output", "junit", "report") & given.keys():
        if given[name].is_dir():
            raise ValueError(f"--{name} {given[name]} is a folder; name a file")
        check_folder(given[name].parent, f"the folder of --{name}", f"name another --{name}")
    if hasattr(options, "data_dir") or options.run in (book, sweep):
        check_folder(cache_dir(), "the cache", "name a folder with QUANTSKEW_CACHE")
    if "root" in given and not given["root"].is_dir():
        raise ValueError(f"--root {given['root']} is no folder; name the repository")


def _command(*declared):
    """Make a function the command of its name with these options; help says what its docstring does."""

    def add(run):
        _COMMANDS.append((run, declared))
        return run

    return add


def _option(name, help=None, metavar=None, **settings):
    """An option, or an argument of a name without dashes; what is given in a FILE or a FOLDER is a path."""
    if metavar in ("FILE", "FOLDER", "GRID.yml"):
        settings = {"type": Path} | settings
    if settings.get("default") is not None and "default:" not in (help or ""):
        help = f"{help or ''} (default: %(default)s)".strip()
    return name.split(), {"help": help, **({"metavar": metavar} if metavar else {}), **settings}


def _names(text):
    """Names in one argument, separated by commas."""
    return tuple(name.strip() for name in text.split(","))


_NAMED = (
    _option("--data-dir", "the data set's folder or archive", "PATH"),
    _option("--download", "fetch torchvision's data sets", action="store_true"),
    _option("--device", "auto, cpu, cuda, cuda:1, ...", default="auto"),
    _option("--seed", "of split, weights and training", type=int),
    _option("--epochs", type=int),
    _option("--model", "small_resnet or any torchvision classifier"),
    _option("--size", "pixels a side", type=int),
    _option("--label", "attribute to predict, where the data set has several"),
    _option("--group", "attribute that makes the groups (folder: or a CSV file; of a CSV file: its column)"),
)
_EXPERIMENT = (_option("experiment", f"of {', '.join(EXPERIMENTS)}"), *_NAMED)
# Those of `quantskew.experiments.experiment.Own`.
_OWN = (
    _option("--test", "of a model in a file: a list of file, label, groups; or a folder", "CSV|FOLDER"),
    _option("--train", "the same of others: for calibration, validation and training", "CSV|FOLDER"),
    _option("--image-root", "of the files that are listed (default: the folder of the list)"),
    _option("--arch", "of a checkpoint: torchvision:NAME, timm:NAME or package.module:function"),
    _option("--classes", "names in the order of the logits", "A,B,...|FILE"),
    _option("--mean", "taken off, one or one a channel", "M,..."),
    _option("--std", "divided by, one or one a channel", "S,..."),
    _option("--channels", "rgb, bgr or grey (default: rgb)"),
    _option("--range", "of values before the mean is taken off: 0-1 or 0-255 (default: 0-1)"),
    _option("--resize", "the shorter side, before a crop to --size (default: no crop)", type=int),
    _option("--interpolation", "such as bicubic (default: bilinear)"),
    _option("--preprocessing", "JSON or TOML of these and size, classes, accuracy", "FILE", type=str),
    _option("--accuracy", "that the model is known to have", "A", type=float),
)
_ANY = (_option("experiment", f"of {', '.join(EXPERIMENTS)}, or a model in a file"), *_NAMED, *_OWN)
_JOBS = _option("--jobs", "at once, each with its share of the threads", "N", type=int, default=1)
_SEEDS = _option("--seeds", "how many, from --seed on", "N", type=int, default=1), _JOBS
_ROOT = _option("--root", "the repository", "FOLDER", default=Path())


def _chosen(options, training=None):
    """The experiment that options name, with what they change; `training` says what needs training images."""
    named = ("seed", "epochs", "model", "size", "label", "group", "start", *OWN)
    found = get(options.experiment, **{name: getattr(options, name, None) for name in named})
    if training and found.own and not found.own.train:
        raise ValueError(f"{training} needs training images: give --train CSV or folder")
    return found


def _where(options):
    """Where images and device are."""
    return {name: getattr(options, name) for name in ("data_dir", "device", "download")}


def _over_seeds(options, **needs):
    """Experiment, seeds, and where images and device are; images are fetched if that is asked for."""
    from quantskew.experiments.catalogue import check, load_data

    experiment, first = _chosen(options, **needs), options.seed or 0
    check_whole("the last seed", first + options.seeds - 1, 0, MOST_SEED)
    check(experiment, None if options.download else options.data_dir, options.device)
    if options.download:
        load_data(experiment, options.data_dir, download=True)
    where = {"data_dir": options.data_dir, "device": options.device}
    return experiment, range(first, first + options.seeds), where


def _folder(options, kind=""):
    """Where results go, by default in ``runs``."""
    return options.output or Path("runs") / f"{Path(options.experiment or 'logits').stem}{kind}"


@_command()
def experiments(options):
    """List the named experiments."""
    for experiment in EXPERIMENTS.values():
        own, named = experiment.recipe, [f"{experiment.model} on {experiment.dataset}"]
        named += [f"{what} {name}" for what in ("label", "group") if (name := getattr(experiment, what))]
        how = f"{own.epochs} epochs of {own.optimizer} at {own.learning_rate}, batches of {own.batch_size}"
        print(f"{experiment.name:17} {', '.join(named)}, {how}")


@_command(*_EXPERIMENT)
def train(options):
    """Train an experiment's model, or go on with it."""
    from quantskew.experiments.catalogue import ready
    from quantskew.training.checkpoint import model_path

    experiment, data, _, record = ready(_chosen(options), **_where(options))
    last = record["history"][-1]["validation"]
    print(f"trained in {record['seconds']:.0f} s; validation accuracy by group:")
    for name, accuracy in zip(data.group_names, last["accuracy"], strict=True):
        print(f"  {name:20} {accuracy:.3f}")
    print(f"model: {model_path(experiment.name, record['key'])}")


_CONDITION = 'such as "accuracy_change[worst] < -0.01 at int8", or a file of them: status 1 where met; repeat'
_GATE = (
    _option("--fail-if", _CONDITION, "CONDITION", action="append", default=[]),
    _option("--confidently", "where the whole 95 %% interval meets it", action="store_true"),
    _option("--junit", "what became of the conditions as JUnit's XML", "FILE"),
    _option("--annotations", "and as annotations of GitHub", action="store_true"),
)


def _status(outcomes, options):
    """Say what became of the conditions: 1 if one was met."""
    from quantskew.measures.gate import annotation, junit

    for outcome in outcomes:
        print(outcome.sentence, file=sys.stderr if outcome.failed else sys.stdout)
    if options.annotations:
        print(*map(annotation, outcomes), sep="\n")
    if options.junit:
        write_bytes(options.junit, junit(outcomes).encode())
    return int(any(outcome.failed for outcome in outcomes))


_RUNTIMES = "ort:fp32, ort:dynamic-int8, ort:static-int8, torchao:int8, torchao:int4, torchao:int8-dynamic"
_PRECISIONS = f"of {', '.join(PRECISIONS)}, and runtimes: {_RUNTIMES}; the first is the reference"
_OF_ACTIVATIONS = "of activations, such as int8, with ranges of 256 training images (default: they stay fp32)"
_LOGITS = "of each column, the reference first (N x C), or files of `quantskew logits`, with their labels"
_QUANTIZER = (
    _option("--scheme", f"of {', '.join((*SCHEMES, *CALIBRATED))}", default="banner"),
    _option("--per-channel", "one grid per output channel", action="store_true"),
    _option("--fold-batchnorm", "merge batch norm into convolutions first", action="store_true"),
    _option("--boundary-precision", "of the first and last layer, such as int8", "P"),
    _option("--activation-precision", _OF_ACTIVATIONS, "P"),
)


@_command(
    (["experiment"], _ANY[0][1] | {"nargs": "?"}),
    *_ANY[1:],
    _option("--precisions", _PRECISIONS, "P,P,...", type=Quantizer.parse_list, default=DEFAULT_PRECISIONS),
    *_QUANTIZER,
    _option("--curvature", "gradient norms, Hessian eigenvalues and traces too (slow)", action="store_true"),
    _option("--curvature-images", "test images of each group for the Hessian (all)", "N", type=int),
    _option("--logits", _LOGITS, "NAME=FILE.npy", action="extend", nargs="+"),
    _option("--labels", "class id of each sample", "FILE.npy"),
    _option("--groups", "group id or name of each sample", "FILE.npy"),
    _option("--group-names", "names of the group ids 0, 1, ...", "A,B,...", type=_names),
    _option("--train-counts", "training samples of each group", "N,N,...", type=_names),
    *_GATE,
    _option("--report", "a page to send on: HTML, or Markdown if it ends in .md", "FILE"),
    _option("--thumbnails", "of images that flip, in the report of a model in a file", action="store_true"),
    _option("--output", "default: runs/EXPERIMENT or runs/logits", "FOLDER"),
)
def audit(options):
    """Audit an experiment, a model of your own, or logits from anywhere.

    Audit an experiment (trained first where it has to be), the model in a file (with --test: a
    torch.export program, ONNX, TorchScript, or a checkpoint with --arch), or logits that any two runtimes
    left in files. Writes the Audit, every table (CSV) and every figure (PNG) into a folder; of several
    group columns, and of their intersections, into a folder each.
    """
    from quantskew.audits.runtimes import RUNTIMES
    from quantskew.audits.shipped import told
    from quantskew.experiments import catalogue
    from quantskew.measures.gate import conditions, decide
    from quantskew.report import summary, write_page, write_report

    if bool(options.logits) == bool(options.experiment):
        files = "--logits NAME=FILE.npy --labels FILE.npy --groups FILE.npy"
        raise ValueError(f"give an experiment or {files}{', not both' * bool(options.logits)}")
    columns = [name for name, _ in map(_entry, options.logits or ())]
    if not columns:
        names = [settings[0].strip("-").replace("-", "_") for settings, _ in _QUANTIZER]
        runtimes = [name for name in options.precisions if name in RUNTIMES]
        named = [name for name in options.precisions if name not in RUNTIMES]
        quantizers = Quantizer.each(named, **{name: getattr(options, name) for name in names})
        columns = [*(own.name for own in quantizers), *runtimes]
    if not options.fail_if and (options.confidently or options.junit or options.annotations):
        raise ValueError("--confidently, --junit and --annotations need --fail-if CONDITION")
    if options.thumbnails and (options.curvature or not (options.test and options.report)):
        raise ValueError("--thumbnails are of the images of --test, in --report, without --curvature")
    held_to = conditions(options.fail_if, columns)
    if options.logits:
        audits = _audits_of_logits(options)
    elif options.test and not options.curvature:
        audits = _audits_of_file(options, quantizers, runtimes=runtimes)
    else:
        curvature = options.curvature and (options.curvature_images or True)
        more = {"runtimes": runtimes, "curvature": curvature, **_where(options)}
        audits = {"": catalogue.audit(_chosen(options), quantizers, **more)}
    first, folder = next(iter(audits.values())), _folder(options)
    missing = first.provenance.get("runtimes_left_out", {})
    if held_to and missing:
        raise ValueError(f"the conditions cannot be decided: {'; '.join(missing.values())}")
    # Before any number.
    print(*told(first.provenance), sep="\n")
    images = None
    if options.thumbnails:
        samples = _listed(options.test, options)
        images = dict(zip(samples.names, samples.paths, strict=True))
    for name, made in audits.items():
        own = re.sub(r"[^\w.-]+", "-", name) if len(audits) > 1 else ""
        print(f"\n{name}\n{'=' * len(name)}\n" if own else "", summary(made), sep="")
        print(f"\n{len(write_report(made, folder / own))} files (Audit, tables, figures) in {folder / own}")
        if options.report:
            page = options.report
            write_page(made, page.with_stem(f"{page.stem}-{own}") if own else page, images)
    decided = itertools.product(held_to, audits.values())
    return _status([decide(condition, made, options.confidently) for condition, made in decided], options)


def _listed(path, options):
    """The images of a list or a folder, with the group columns that options ask for."""
    from quantskew.datasets import listed

    return listed.read(path, options.image_root, options.group and _names(options.group))


def _audits_of_file(options, quantizers=("fp32",), **more):
    """The Audits of the model in a file by group column."""
    from quantskew.audits.shipped import audit_file

    own = _chosen(options).own
    more |= {"device": None if options.device == "auto" else options.device, "arch": own.arch}
    more |= {"calibration": own.train and _listed(own.train, options)}
    samples = _listed(own.test, options)
    return audit_file(options.experiment, samples, quantizers, given=own.given(options.size), **more)


@_command(
    _option("experiment", "a file, as for `quantskew audit MODEL --test`", "MODEL"),
    *(own for own in _NAMED if own[0][0] in ("--size", "--group", "--device")),
    *_OWN,
    _option("--output", None, "FILE", default=Path("logits.npz")),
)
def logits(options):
    """Write the logits of a model of your own to a file, for `quantskew audit --logits`."""
    from quantskew.audits.logits import write_logits
    from quantskew.audits.shipped import told

    audits = _audits_of_file(options)
    print(*told(next(iter(audits.values())).provenance), sep="\n")
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
    from quantskew.audits.logits import audit_logits
    from quantskew.datasets import listed

    entries = [*map(_entry, options.logits)]
    paths = dict(entries)
    for name in paths:
        if sum(own == name for own, _ in entries) > 1:
            raise ValueError(f"--logits names {name} twice")
    counts = options.train_counts and [int(n) if n.isdecimal() else n for n in options.train_counts]
    files = {"labels": options.labels, "groups": options.groups}
    chosen, names = options.group and _names(options.group), options.classes and class_names(options.classes)
    samples = options.test and listed.read(options.test, chosen=chosen, images=False)
    return audit_logits(paths, files, samples, names, options.group_names, counts)


@_command(
    _option("--groups", "test images of each group", "N,N,...", type=_names, required=True),
    _option("--detect", "of accuracy, such as 0.03", "DROP", type=float, required=True),
)
def plan(options):
    """Say how many test images a group needs to show a drop of accuracy.

    For McNemar's exact test at the 5 % level, corrected for the number of groups, where 1 % of the images
    flip to right and more by the drop to wrong.
    """
    from quantskew.measures.harm import POWER, plan

    sizes = [int(size) if size.isdecimal() else size for size in options.groups]
    for size in sizes:
        check_whole("each of --groups", size, 1, 10**8)
    table = plan(sizes, options.detect)
    least, drop = table.pop("needed")[0], options.detect
    print(f"{least:,} images of a group show a drop of {drop:g} with a probability of {POWER}; those given:")
    print(table.to_string(index=False, float_format="{:.3f}".format))


@_command(
    *_ANY,
    _option("--mean-bits", "of a weight, such as 3.5", "B", type=float, required=True),
    _option("--for", "mean, worst-group or fvo", dest="goal", default="mean"),
    _option("--quantizer", "bits apart", default="int4:mse"),
    _option("--output", "default: runs/EXPERIMENT-plan.json", "FILE"),
)
def allocate(options):
    """Choose the bits of each layer within a budget.

    Measure what quantizing each layer alone does to each group on validation images, and give it 2, 3, 4,
    6 or 8 bits for the least mean loss, the least loss of the worst group, or the least FVO. Writes the
    plan, which `mitigate --plan FILE` quantizes and trains by.
    """
    from quantskew.experiments.allocation import planned, write_plan

    experiment = _chosen(options, training="allocate, which measures on validation images,")
    budget = [options.mean_bits], [options.goal], options.quantizer
    (plan,) = planned(experiment, *budget, **_where(options)).values()
    path = _folder(options, "-plan.json")
    write_plan(path, plan)
    print(f"{', '.join(plan['plan'].values())}: {plan['spent_bits']:.2f} bits a weight, in {path}")


@_command(
    *_ANY,
    _option("--precision", "such as int4:mse", "P", default="int4"),
    _option("--output", "default: runs/EXPERIMENT-layers", "FOLDER"),
)
def layers(options):
    """Quantize one layer of an experiment at a time, and all but one.

    Audit an experiment with the weights of each layer quantized alone, and of all layers but it. Writes
    the Audit, and what each layer changes of each group's loss and accuracy (CSV and PNG).
    """
    from quantskew.experiments import catalogue
    from quantskew.report import write_layers

    made = catalogue.layer_audit(_chosen(options), options.precision, **_where(options))
    for path in write_layers(made, _folder(options, "-layers")):
        print(path)


@_command(
    *_ANY,
    _option("--methods", f"of {', '.join(METHODS)} (default: all)", "M,M,...", type=_names),
    _option("--start", "weights of a float model that is then not trained here", "FILE", type=str),
    _option("--plan", "bits of each layer, as `allocate` writes them", "FILE"),
    *_SEEDS,
    _option("--output", "default: runs/EXPERIMENT-mitigated", "FOLDER"),
)
def mitigate(options):
    """Run mitigation methods on an experiment and compare them.

    Train, quantize and audit an experiment under mitigation methods. Writes the Audit of each method and
    seed, and their comparison (CSV and PNG). What is done already is not done again.
    """
    from quantskew.experiments import methods, runs
    from quantskew.experiments.allocation import read_plan
    from quantskew.quantization.qat import QATOptions
    from quantskew.report import write_comparison

    folder = _folder(options, "-mitigated")
    titles = {key: methods.get(key).title for key in options.methods or METHODS}
    experiment, seeds, where = _over_seeds(options, training="mitigate")
    keys = _possible(titles, experiment, options.methods)
    if options.plan:
        plan = read_plan(options.plan)
        where |= {"precisions": ("fp32", plan["precision"]), "options": QATOptions(plan=plan["plan"])}
    chosen = {"seeds": seeds, "keys": keys, **where}
    runs.ahead(options.jobs, runs.write, experiment, folder, **chosen)
    audits = {}
    for key, made, path in runs.write(experiment, folder, **chosen):
        audits.setdefault(titles[key], []).append(made)
        print(path)
    table = write_comparison(audits, folder)
    print(table.pivot(index="method", columns=["measure", "precision"], values="value").round(3).to_string())


def _possible(keys, experiment, asked=False):
    """Those of the keys of runs that can be made of an experiment; others are left out or refused."""
    from quantskew.experiments.runs import refusal

    refused = {key: why for key in keys if (why := refusal(experiment, key))}
    if asked and refused:
        raise ValueError("; ".join(refused.values()))
    for key, why in refused.items():
        print(f"without {key}: {why}", file=sys.stderr)
    return [key for key in keys if key not in refused]


@_command(
    *_ANY,
    _option("--seeds", "how many, from --seed on (default: 3; of a model in a file 1)", "N", type=int),
    _JOBS,
    _option("--claims", "their keys (default: all of the paper's)", "C,C,...", type=_names),
    _option("--recorded", "judge the records in book/records instead of making any", action="store_true"),
    _option("--format", choices=("text", "csv", "json"), default="text"),
    _option("--output", "default: standard output", "FILE"),
)
def claims(options):
    """Judge the paper's claims on an experiment, or on Audits of record.

    Train, quantize and audit what the claims need, and print a verdict on each. What is done already is
    not done again. A path of an Audit (FILE.safetensors, further seeds beside it as FILE-1.safetensors)
    is judged as it is.
    """
    from quantskew.audits.audit import quantizer_of
    from quantskew.claims import register
    from quantskew.experiments import runs
    from quantskew.report import written

    keys = options.claims or tuple(register.CLAIMS)
    chosen = [register.get(key) for key in keys]
    if options.recorded or (options.experiment.endswith(".safetensors") and not options.test):
        found = runs.read(options.experiment, [runs.BASE, *register.needs(chosen)])
    else:
        options.seeds = options.seeds or (1 if options.test else 3)
        if options.test and options.seeds > 1:
            raise ValueError("a model in a file is one run: leave out --seeds")
        experiment, seeds, where = _over_seeds(options)
        where |= {"seeds": seeds, "curvature": any(claim.curvature for claim in chosen)}
        needed = _possible(register.needs(chosen), experiment)
        runs.ahead(options.jobs, runs.make, experiment, needed, **where)
        found = runs.make(experiment, needed, **where)
    columns = [name for audit in found.get(runs.BASE, ())[:1] for name in audit.precisions[1:]]
    if columns and not any(quantizer_of(name).precision for name in columns):
        what = f"all are on precisions such as int4, none of {some(columns)} is"
        raise ValueError(f"no claim can be judged: {what}")
    text = written(register.judged(found, keys), options.format) + "\n"
    if options.output:
        write_bytes(options.output, text.encode())
    else:
        print(text, end="")


@_command(
    *_EXPERIMENT,
    *_SEEDS,
    _option("--output", None, "FOLDER", default=Path("book/records")),
    _option("--base-only", "only PTQ of the experiment", action="store_true"),
)
def records(options):
    """Make the book's records of an experiment, or go on with them.

    Write the Audits that the chapters read: the experiment with its curvature, every method of the book,
    quantized activations, the balanced set and its rotations. What is done already is not done again.
    """
    from quantskew.experiments.runs import BASE, ahead, write

    experiment, seeds, where = _over_seeds(options)
    where |= {"seeds": seeds, "keys": [BASE] if options.base_only else None}
    ahead(options.jobs, write, experiment, options.output, **where)
    for _, _, path in write(experiment, options.output, **where):
        print(path)


_PARAMETER = "of the chapters, its value in YAML, such as -p scheme mse; repeat"


@_command(
    _ROOT,
    _option("-p --parameter", _PARAMETER, ("NAME", "VALUE"), action="append", nargs=2, default=[]),
)
def book(options):
    """Execute the book's chapters (run in the repository)."""
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
    _option("grid", "which cells: see notebooks/grids", "GRID.yml"),
    _option("--jobs", "at once", "N", type=int, default=1),
    _option("--output", "default: runs/GRID", "FOLDER"),
    _option("--executor", "of Snakemake, such as slurm (default: this machine)", "NAME"),
    _option("--timeout", "that one code cell of a chapter may take (900)", "SECONDS", type=int),
    _ROOT,
)
def sweep(options):
    """Run a grid of chapters and audits, here or on a cluster (run in the repository).

    Run the cells of a grid (YAML) with Snakemake, and gather their results in one table and one page.
    What is done already is not done again: after anything was killed, the same command goes on. Further
    options of Snakemake follow after --, such as -- --dry-run.
    """
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
