"""quantskew: see, check and use how quantization disparately skews a model.

>>> import quantskew as qs
>>> audit = qs.Audit.from_logits({"fp32": [[2.0, 0.0]] * 4, "int2": [[0.0, 1.0]] * 4}, [0] * 4, list("aabb"))
>>> qs.group_accuracy(audit)["value"].tolist()
[1.0, 1.0, 0.0, 0.0]

`audit` runs a model at several quantizers (`Quantizer`) on a data set (`load_data`).  The `Audit` has what
all measures are functions of; each measure is here by its name.  Nothing is imported before it is used.
"""

import importlib
import importlib.util
import os

# Before torch is there: threads that spin beside a busy process make a small network 27 times as slow.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
_PLACES = {
    "load_data": "datasets:load",
    "audit": "audits.model:audit_model",
    "audit_layers": "audits.layers:audit_layers",
    "Audit": "audits.audit:Audit",
    "load_model": "audits.shipped:load",
    "audit_file": "audits.shipped:audit_file",
    "Quantizer": "quantization.quantizer:Quantizer",
    "fake_quantize": "quantization.grids:fake_quantize",
    "quantize_model": "quantization.ptq:quantize_model",
    "group_gradient_norms": "derivatives.gradients:group_gradient_norms",
    "top_eigenvalues": "derivatives.hessian:top_eigenvalues",
}
# What tells of an Audit and is no Measure, which are found by themselves.
_TABLES = {
    "fairness": ("layer_changes", "class_accuracy", "intersections"),
    "forward": ("probabilities", "null_logits", "dtdb_histogram"),
    "harm": ("harm", "flips", "flipped", "agreement", "plan"),
    "surface": ("excess_loss", "loss_profile", "taylor"),
    "weights": ("absolute_difference", "sparsity", "mean_magnitude", "weight_histogram"),
}
_PLACES |= {name: f"measures.{module}:{name}" for module, names in _TABLES.items() for name in names}


def _measures():
    """Measures by their names, of groups and of the whole model."""
    from quantskew.measures.measure import MEASURES, MODEL_MEASURES

    return MEASURES | MODEL_MEASURES


def __getattr__(name):
    if name in _PLACES:
        module, own = _PLACES[name].split(":")
        return getattr(importlib.import_module(f"quantskew.{module}"), own)
    if name == "__all__":
        return sorted([*_PLACES, *_measures()])
    # Whoever imports a module of the package asks for it here first.
    if not name.startswith("_") and not importlib.util.find_spec(f"quantskew.{name}"):
        measures = _measures()
        if name in measures:
            return measures[name]
    raise AttributeError(f"module 'quantskew' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_PLACES, *_measures()})
