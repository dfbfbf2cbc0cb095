"""A trained model whose Audit at any precision and scheme is made when it is asked for, and only once."""

import functools
from dataclasses import replace

import numpy as np
import torch

from quantskew.audits.measure import audit_model, check_audit
from quantskew.datasets import normalise
from quantskew.derivatives.gradients import group_gradient_norms
from quantskew.derivatives.hessian import top_eigenvalues
from quantskew.measures.statistics import Curvature
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizers import integer_bits
from quantskew.studies.experiments import load_data, trained, with_seed

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
        See `quantskew.studies.experiments.audit`.
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
            `quantskew.audits.measure.audit_model`.

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
                part = replace(part, curvature=self._surface(quantized, precision, surface == "hessian"))
            self._made[key] = part
        return self._made[key]

    def _surface(self, quantized, precision, hessian):
        split, num_groups = self.data.test, len(self.data.group_names)
        device = next(quantized.parameters()).device
        inputs, labels, groups = normalise(split.images.to(device)), split.labels.to(device), split.groups
        norms = group_gradient_norms(quantized, inputs, labels, groups, num_groups).numpy()
        of_groups = np.full((1, num_groups), np.nan)
        chosen = torch.cat(
            [torch.nonzero(groups == g).flatten()[: self.curvature_images] for g in range(num_groups)]
        )
        values, residuals, matvecs = of_groups, of_groups, np.zeros((1, num_groups), dtype=np.int64)
        if hessian:
            top = top_eigenvalues(
                quantized, inputs[chosen], labels[chosen], groups[chosen], num_groups=num_groups
            )
            values, residuals, matvecs = top.values[None], top.residuals[None], top.matvecs[None]
        return Curvature(
            images=np.bincount(groups[chosen], minlength=num_groups),
            gradient_norms=norms[None],
            lambda_max=values,
            residuals=residuals,
            matvecs=matvecs,
            traces=of_groups,
            trace_errors=of_groups,
            change_norms=np.full(1, np.nan),
            profile_groups=np.empty(0, dtype=np.int64),
            profile_steps=np.empty(0),
            profile_lengths=np.empty(0),
            profile_losses=np.empty((2, 2, 0)),
            profile_precision=precision,
        )
