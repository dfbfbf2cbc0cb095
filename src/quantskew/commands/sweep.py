"""`quantskew sweep`: a grid of chapters and audits."""

import sys
from pathlib import Path


def add(commands):
    """Declare the command and its options."""
    parser = commands.add_parser(
        "sweep",
        help="run a grid of chapters and audits, here or on a cluster (run in the repository)",
        description="Run the cells of a grid (YAML) with Snakemake, and gather their results in one table "
        "and one page. What is done already is not done again: after anything was killed, the same "
        "command goes on. Further options of Snakemake follow after --, such as -- --dry-run.",
    )
    parser.add_argument("grid", type=Path, metavar="GRID.yml", help="which cells: see notebooks/grids")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="at once (default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="default: runs/GRID")
    parser.add_argument(
        "--executor", metavar="NAME", help="of Snakemake, such as slurm (default: this machine)"
    )
    parser.add_argument(
        "--timeout", type=int, metavar="SECONDS", help="that one code cell of a chapter may take (900)"
    )
    parser.add_argument(
        "--root", type=Path, default=Path(), metavar="FOLDER", help="the repository (default: .)"
    )
    parser.set_defaults(run=run)


def run(options):
    """Print what has failed, and where the results are; 1 if anything failed."""
    # Only this command needs Snakemake and the book's own packages.
    from quantskew.sweeps.sweep import DRY_RUN, run_sweep, write_page
    from quantskew.sweeps.table import gather

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
