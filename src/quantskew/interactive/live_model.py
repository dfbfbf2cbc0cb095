"""A trained model whose Audit at any precision and scheme is made when it is asked for, and only once."""

import functools
from dataclasses import replace

from quantskew.audits.curvature import measure_surface
from quantskew.audits.model import audit_model
from quantskew.experiments.catalogue import load_data, trained, with_seed
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizer import Quantizer

SURFACES = ("gradients", "hessian")


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
        self._made = {}

    @functools.cached_property
    def data(self):
        """The experiment's `Dataset`."""
        return load_data(self.experiment, self.data_dir)

    @functools.cached_property
    def model(self):
        """The trained model, in evaluation mode; nothing changes it."""
        return trained(self.experiment, self.data, self.device)[0]

    def audit(self, quantizer, surface=None, reference="fp32"):
        """The Audit of the reference and one other quantizer.

        Parameters
        ----------
        quantizer : Quantizer or str
        surface : {"gradients", "hessian"}, optional
            What of the loss surface is measured too: the gradient norms, or these and lambda_max.  The rest
            of its `Curvature` is NaN.
        reference : str
            The precision that it is compared with, all else as the quantizer has it; asked for itself, it
            comes alone.

        Returns
        -------
        Audit

        Raises
        ------
        ValueError
            If a name is not known.
        """
        own = Quantizer.of(quantizer)
        if surface not in (None, *SURFACES):
            raise ValueError(f"unknown surface {surface!r}; known: {', '.join(SURFACES)}")
        part, reference = self._part(own, surface), own.at(reference)
        if own == reference:
            return part
        return replace(self._part(reference, surface).join(part), provenance=part.provenance)

    def _part(self, quantizer, surface):
        """The Audit of one quantizer."""
        if (quantizer, surface) not in self._made:
            part = audit_model(self.model, self.data, [quantizer])
            if surface:
                curvature = measure_surface(
                    quantize_model(self.model, quantizer),
                    self.data.test,
                    quantizer.name,
                    images=self.curvature_images,
                    hessian=surface == "hessian",
                )
                part = replace(part, curvature=curvature)
            self._made[quantizer, surface] = part
        return self._made[quantizer, surface]
