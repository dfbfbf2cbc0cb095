"""A trained model whose Audit at any precision and scheme is made when it is asked for, and only once."""

import functools
from dataclasses import replace

from quantskew.audits.curvature import measure_surface
from quantskew.audits.model import audit_model, check_audit
from quantskew.experiments.catalogue import load_data, trained, with_seed
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizer import integer_bits

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
    >>> model.audit("int3", scheme="mse").precisions
    ('fp32', 'int3')
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

    def audit(self, precision, scheme="banner", surface=None, reference="fp32", **options):
        """The Audit of the reference and one other precision.

        Parameters
        ----------
        precision : str
        scheme : str
        surface : {"gradients", "hessian"}, optional
            What of the loss surface is measured too: the gradient norms, or these and lambda_max.  The rest
            of its `Curvature` is NaN.
        reference : str
            The precision that the other one is compared with; asked for itself, it comes alone.
        **options
            ``per_channel``, ``fold_batchnorm`` and ``boundary_precision``, see
            `quantskew.audits.model.audit_model`.

        Returns
        -------
        Audit

        Raises
        ------
        ValueError
            If a name is not known.
        """
        check_audit([precision], scheme, options.get("boundary_precision"))
        if surface not in (None, *SURFACES):
            raise ValueError(f"unknown surface {surface!r}; known: {', '.join(SURFACES)}")
        part = self._part(precision, scheme, surface, options)
        if precision == reference:
            return part
        joined = self._part(reference, scheme, surface, options).join(part)
        return replace(joined, provenance=part.provenance)

    def _part(self, precision, scheme, surface, options):
        """The Audit of one precision."""
        if integer_bits(precision) is None:
            # Floating point has no grid to choose: the reference is the same beside every scheme.
            scheme = "banner"
        key = (precision, scheme, surface, tuple(sorted(options.items())))
        if key not in self._made:
            part = audit_model(self.model, self.data, [precision], scheme, **options)
            if surface:
                quantized = quantize_model(self.model, precision, scheme, **options)
                curvature = measure_surface(
                    quantized,
                    self.data.test,
                    precision,
                    images=self.curvature_images,
                    hessian=surface == "hessian",
                )
                part = replace(part, curvature=curvature)
            self._made[key] = part
        return self._made[key]
