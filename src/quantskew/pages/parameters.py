"""The parameters that a chapter declares in its ``parameters`` cell, and their check before anything runs."""

import ast


def declared_parameters(notebook):
    """Names and default values in a notebook's ``parameters`` cell.

    Examples
    --------
    >>> import nbformat
    >>> source = 'seed: int = 0  # of the run'
    >>> cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    >>> declared_parameters(nbformat.v4.new_notebook(cells=[cell]))
    {'seed': 0}
    """
    declared = {}
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            for node in ast.parse(cell.source).body:
                if isinstance(node, ast.AnnAssign) and node.value is not None:
                    declared[node.target.id] = ast.literal_eval(node.value)
    return declared


def check_parameters(notebook, parameters, name):
    """Refuse parameters that a chapter does not declare, or that have another type.

    Raises
    ------
    ValueError
        The message lists the declared parameters with their defaults.
    """
    declared = declared_parameters(notebook)
    # A parameter that is empty by default is a name or a path.
    kinds = {key: str if default is None else type(default) for key, default in declared.items()}
    check_declared(declared, kinds, parameters, name)


def check_declared(declared, kinds, parameters, name):
    """Refuse parameters that are not declared, or that have another type.

    Parameters
    ----------
    declared : dict of str to object
        Defaults, which always fit.
    kinds : dict of str to type
        A whole number serves for a float.
    parameters : dict
    name : str
        Of what declares them.

    Raises
    ------
    ValueError
        The message lists the declared parameters with their defaults.
    """
    listing = ", ".join(f"{key}={value!r}" for key, value in declared.items())
    for key, value in parameters.items():
        if key not in declared:
            raise ValueError(f"{name} has no parameter {key!r}; it declares {listing}")
        default, expected = declared[key], kinds[key]
        fits = type(value) is expected or (expected is float and type(value) is int) or value is default
        if not fits:
            raise ValueError(
                f"{name}: {key} must be of type {expected.__name__}, not {type(value).__name__} ({value!r}); "
                f"it declares {listing}"
            )
