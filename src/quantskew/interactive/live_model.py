"""A trained model whose Audit under any quantizer is made when it is asked for, and only once."""

import functools
from dataclasses import replace

from quantskew.audits.curvature import measure_surface
from quantskew.audits.model import audit_model, check_audit
from quantskew.checks import check_known
from quantskew.experiments.catalogue import load_data, trained, with_seed
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizer import Quantizer


class LiveModel:
    """The model of an experiment, to be quantized and audited anew.

    Data and model are loaded when the first Audit is asked for: until then it costs nothing.

    Parameters
    ----------
    experiment : Experiment or str
    seed : int
    data_dir : path, optional
    device : str
        See `quantskew.experiments.catalogue.audit`.
    curvature_images : int
        Test images of each group for the Hessian, the first of the split.

    Examples
    --------
    >>> model = LiveModel("digits")
    >>> model.audit("int3:mse").precisions
    ('fp32', 'int3:mse')
    """

    def __init__(self, experiment, seed=0, *, data_dir=None, device="auto", curvature_images=256):
        self.experiment = with_seed(experiment, seed)
        self.data_dir, self.device, self.curvature_images = data_dir, device, curvature_images
        self._part = functools.cache(self._make)

    @functools.cached_property
    def data(self):
        """The experiment's `Dataset`."""
        return load_data(self.experiment, self.data_dir)

    @functools.cached_property
    def model(self):
        """The trained model, in evaluation mode; nothing changes it."""
        return trained(self.experiment, self.data, self.device)[0]

    def audit(self, quantizer, surface=None, reference="fp32"):
        """The Audit of a quantizer beside a reference precision, which else is quantized likewise.

        ``surface``, which is "gradients" or "hessian", says what of the loss surface is measured too: the
        gradient norms, or these and lambda_max; the rest of its `Curvature` is NaN.  The reference, asked for
        itself, comes alone.
        """
        quantizer = Quantizer.of(quantizer)
        if surface is not None:
            check_known("surface", surface, ("gradients", "hessian"))
        check_audit([quantizer], surface is not None)
        reference, part = quantizer.at(reference), self._part(quantizer, surface)
        if quantizer == reference:
            return part
        joined = self._part(reference, surface).join(part)
        return replace(joined, provenance=part.provenance | {"quantizers": list(joined.precisions)})

    def _make(self, quantizer, surface):
        """The Audit of one quantizer."""
        part = audit_model(self.model, self.data, [quantizer])
        if not surface:
            return part
        options = {"images": self.curvature_images, "hessian": surface == "hessian"}
        quantized = quantize_model(self.model, quantizer)
        curvature = measure_surface(quantized, self.data.test, quantizer.name, **options)
        return replace(part, curvature=curvature)
