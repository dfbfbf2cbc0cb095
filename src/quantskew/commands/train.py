"""`quantskew train`: the model of an experiment."""

from quantskew.commands.options import add_experiment, chosen_experiment
from quantskew.experiments import catalogue
from quantskew.training.checkpoint import model_path


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser("train", help="train an experiment's model, or go on with it")
    add_experiment(parser)
    parser.set_defaults(run=run)


def run(options):
    """Print what the model reaches on each group, and where it is kept."""
    experiment = chosen_experiment(options)
    data = catalogue.load_data(experiment, options.data_dir, options.download)
    _, record = catalogue.trained(experiment, data, options.device)
    last = record["history"][-1]["validation"]
    print(f"trained in {record['seconds']:.0f} s; validation accuracy by group:")
    for name, accuracy in zip(data.group_names, last["accuracy"], strict=True):
        print(f"  {name:20} {accuracy:.3f}")
    print(f"model: {model_path(experiment.name, record['key'])}")
