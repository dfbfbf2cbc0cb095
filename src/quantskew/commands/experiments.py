"""`quantskew experiments`: what can be trained and audited by name."""

from quantskew.experiments.catalogue import EXPERIMENTS


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser("experiments", help="list the named experiments")
    parser.set_defaults(run=run)


def run(options):
    """Print a line for each experiment."""
    for experiment in EXPERIMENTS.values():
        recipe = experiment.recipe
        chosen = {"label": experiment.label, "group": experiment.group}
        named = "".join(f", {what} {name}" for what, name in chosen.items() if name)
        print(
            f"{experiment.name:17} {experiment.model} on {experiment.dataset}{named}, {recipe.epochs} epochs "
            f"of {recipe.optimizer} at {recipe.learning_rate}, batches of {recipe.batch_size}"
        )
