"""The comparison of methods as files: a table (CSV) and Figures 11 and 12 (PNG)."""

from pathlib import Path

from quantskew.base.files import replacing, write_bytes
from quantskew.drawing import tradeoff_figures
from quantskew.drawing.style import compare
from quantskew.measures.tradeoffs import comparison


def write_comparison(audits, folder, title="methods"):
    """Write the comparison of methods into a folder.

    Parameters
    ----------
    audits : dict of str to sequence of Audit
        Seeds of each method, by its title.
    folder : path
        Made where it does not exist; files of the same names are replaced.
    title : str
        Of the figures.

    Returns
    -------
    pandas.DataFrame
        See `quantskew.measures.tradeoffs.comparison`.
    """
    folder, table = Path(folder), comparison(audits)
    write_bytes(folder / "comparison.csv", table.to_csv(index=False).encode())
    figures = {f"{measure}.png": tradeoff_figures.by_method(measure) for measure in ("fvo", "accuracy")}
    quantized = list(dict.fromkeys(table["precision"]))[1:]
    figures |= {f"tradeoff-{p}.png": tradeoff_figures.accuracy_against_fvo(p) for p in quantized}
    for name, draw in figures.items():
        with replacing(folder / name) as partial:
            figure = compare(draw, {title: table}, legend=tradeoff_figures.method_legend)
            figure.savefig(partial, format="png", dpi=150)
    return table
