"""What several commands share: their options, and what is made of them."""

from quantskew.experiments import catalogue


def add_experiment(parser, optional=False):
    """Which experiment, and with which changes."""
    parser.add_argument(
        "experiment",
        nargs="?" if optional else None,
        help=f"of {', '.join(catalogue.EXPERIMENTS)}",
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


def add_seeds(parser, default=1):
    """How many seeds."""
    parser.add_argument(
        "--seeds",
        type=int,
        default=default,
        metavar="N",
        help="how many, from --seed on (default: %(default)s)",
    )


def comma_separated(text):
    """Names in one argument.

    Examples
    --------
    >>> comma_separated("fp32, int4")
    ('fp32', 'int4')
    """
    return tuple(name.strip() for name in text.split(","))


def chosen_experiment(options):
    """The experiment that options name, with what they change."""
    changes = {name: getattr(options, name) for name in ("seed", "epochs", "model", "size", "label", "group")}
    return catalogue.get(options.experiment, **changes)


def over_seeds(options):
    """Experiment, seeds, and where images and device are; images are fetched if that is asked for."""
    if options.seeds < 1:
        raise ValueError(f"--seeds must be at least 1; got {options.seeds}")
    experiment, first = chosen_experiment(options), options.seed or 0
    if options.download:
        catalogue.load_data(experiment, options.data_dir, download=True)
    where = {"data_dir": options.data_dir, "device": options.device}
    return experiment, range(first, first + options.seeds), where
