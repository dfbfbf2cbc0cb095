"""Weights, activations, or both: the same model with each of them quantized (section 6 of the paper).

The paper quantizes weights only and expects of activations that "the results would either resemble that of
weight quantization or expand the disparity that we observed".  The Audit made here decides that.
"""

from quantskew.audits.audit_cache import audit_once
from quantskew.audits.measure import audit_models, calibration_images
from quantskew.base.files import digest
from quantskew.base.provenance import source_digest
from quantskew.quantization.ptq import quantize_model
from quantskew.studies import experiments

# Precision of the weights and of the activations, by the name in the Audit.
COLUMNS = {
    "fp32": ("fp32", None),
    "int8": ("int8", None),
    "int4": ("int4", None),
    "A8": ("fp32", "int8"),
    "A4": ("fp32", "int4"),
    "W8A8": ("int8", "int8"),
    "W4A4": ("int4", "int4"),
}


def audit_activations(experiment, data_dir=None, device="auto"):
    """The Audit of an experiment at `COLUMNS`, from the cache or made now.

    ``int8`` and ``int4`` quantize weights alone, as everywhere else, ``A8`` and ``A4`` activations alone,
    ``W8A8`` and ``W4A4`` both.  Every grid is of a whole tensor and from min to max; those of the activations
    are calibrated on training images (see `quantskew.audits.measure.calibration_images`), all on the same
    ones.

    Parameters
    ----------
    experiment : Experiment or str
    data_dir, device
        See `quantskew.studies.experiments.audit`.

    Returns
    -------
    Audit

    Examples
    --------
    >>> audit_activations("digits").precisions
    ('fp32', 'int8', 'int4', 'A8', 'A4', 'W8A8', 'W4A4')
    """
    if isinstance(experiment, str):
        experiment = experiments.get(experiment)
    data = experiments.load_data(experiment, data_dir)
    model, record = experiments.trained(experiment, data, device)
    key = digest([record["key"], list(COLUMNS.items()), source_digest("quantskew.studies.activation_audit")])

    def make(_):
        images = calibration_images(data)
        quantized = {
            name: quantize_model(model, weights, activation_precision=activations, calibration=images)
            for name, (weights, activations) in COLUMNS.items()
        }
        facts = experiments.training_facts(experiment, data, record, device)
        facts["quantization"] = {"columns": COLUMNS, "calibration_images": len(images)}
        return audit_models(quantized["fp32"], quantized, data, facts=facts)

    return audit_once(f"{experiment.name}-activations", key, make)
