"""A chapter of two cells, and what it prints."""

import nbformat

TEXT = """---
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

# A title

```{code-cell} ipython3
:tags: [parameters]

bits: int = 4  # of the weights
share: float = 0.5
names: list = ["a"]
path: str = None
```

```{code-cell} ipython3
print(bits * share, names)
```
"""


def outputs(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.get("text", "") for cell in cells for o in cell.get("outputs", []))
