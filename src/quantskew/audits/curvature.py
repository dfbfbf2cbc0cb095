"""Gradients and Hessians of every group under every quantizer, kept on disk step by step."""

from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load, save
from safetensors.torch import load as load_vectors
from safetensors.torch import save as save_vectors
from torch.nn import functional
from tqdm.auto import tqdm

from quantskew.audits.statistics import Curvature
from quantskew.datasets import normalise
from quantskew.derivatives.gradients import group_gradient_norms, loss_along, parameter_vector
from quantskew.derivatives.hessian import group_operators, top_eigenpair, top_eigenvalues
from quantskew.derivatives.lanczos import trace_samples
from quantskew.files import Damaged, digest, read_tensors, write_tensors
from quantskew.groups import group_means
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizer import Quantizer

_KEY = "quantskew.curvature"
_PROFILE_STEPS, _PROFILE_PRECISION = np.linspace(-1.5, 1.5, 21), "int4"


class CurvatureState:
    """What has been measured so far, the rest NaN or without steps; in a file that a later run goes on with.

    The file is replaced after each step, and refused where it is of another `run` (a digest of model and
    settings).  Beside it is one of each group's eigenvectors, since Lanczos begins at that of the row before:
    `vectors` are the last ones by group, `reference` those of the first row.
    """

    def __init__(self, precisions, images, path=None, run=None):
        self.path, self.run, shape = path and Path(path), run, (precisions, len(images))
        self.vectors, self.reference = {}, {}
        names = ("gradient_norms", "lambda_max", "residuals", "traces", "trace_errors", "slopes", "bends")
        self.arrays = {name: np.full(shape, np.nan) for name in names}
        self.arrays["images"] = np.array(images, dtype=np.int64)
        self.arrays["matvecs"] = np.zeros(shape, dtype=np.int64)
        self.arrays["change_norms"] = np.full(precisions, np.nan)
        self.arrays |= {f"profile_{name}": np.empty(0) for name in ("steps", "lengths")}
        self.arrays |= {"profile_groups": np.empty(0, dtype=np.int64), "profile_losses": np.empty((2, 2, 0))}
        if path is None or not self.path.exists():
            return
        read = self.path
        try:
            self.arrays, metadata = read_tensors(read, load, own=True)
            if metadata.get(_KEY) == run:
                for group, rows in enumerate((~np.isnan(self.arrays["trace_errors"])).sum(axis=0)):
                    if rows:
                        read = self._vectors_of(group)
                        kept, _ = read_tensors(read, load_vectors, own=True)
                        self.vectors[group], self.reference[group] = kept[str(rows - 1)], kept["0"]
        except (ValueError, KeyError, OSError) as error:
            said = f"{read} is not a whole checkpoint ({error})"
            raise Damaged(f"{said}; delete {path} to begin anew") from error
        if metadata.get(_KEY) != run:
            raise Damaged(f"{path} belongs to another model or other settings; delete it")

    def _vectors_of(self, group):
        return self.path.with_name(f"{self.path.name}-{group}")

    def put_vector(self, row, group, vector):
        """Take a group's eigenvector of a row, and keep the row's before it until the row itself is put."""
        kept = {"0": self.reference.setdefault(group, vector), str(row): vector}
        if row > 1:
            kept[str(row - 1)] = self.vectors[group]
        self.vectors[group] = vector
        if self.path is not None:
            # No two of them may be one in memory.
            own = {name: own.detach().cpu().clone() for name, own in kept.items()}
            write_tensors(self._vectors_of(group), save_vectors(own))

    def remove(self):
        """Remove what is on disk."""
        if self.path is not None:
            for path in (*map(self._vectors_of, range(self.arrays["images"].size)), self.path):
                path.unlink(missing_ok=True)

    def put(self, where, **values):
        """Take what was measured at that place of the arrays, and keep all on disk."""
        for name, value in values.items():
            self.arrays[name][where] = value
        if self.path is not None:
            write_tensors(self.path, save(self.arrays, {_KEY: self.run}))


def check_curvature(quantizers):
    """The quantizers, unless the models that they make cannot be differentiated or compared."""
    chosen = Quantizer.each(quantizers)
    rounded = [own.name for own in chosen if own.activation_precision]
    if rounded:
        said = "the loss cannot be differentiated through rounded activations"
        raise ValueError(f"{said}; leave out curvature or {', '.join(rounded)}")
    other = [own.name for own in chosen if own.fold_batchnorm != chosen[0].fold_batchnorm]
    if other:
        said = f"curvature compares models with the same parameters, but {chosen[0]} and {', '.join(other)}"
        raise ValueError(f"{said} differ in folding batch norm; audit them apart, or leave out curvature")
    return chosen


def measure_curvature(
    model, split, quantizers, *, images=None, rtol=1e-2, samples=8, checkpoint=None, seed=0, calibration=None
):
    """Gradient norm, lambda_max and trace of each group under each quantizer, and profiles of the loss.

    Gradient norms are over all test images (Eq. 10), the rest over the first `images` of each group, or all.
    `rtol` is the relative residual of lambda_max, `samples` the number of random vectors of each trace.  The
    file `checkpoint` is replaced after each step; a run that finds it goes on from there.  `calibration` are
    the images that weights are rounded by, where a quantizer needs them.
    """
    problem = _Problem(model, split, images)
    chosen = check_curvature(quantizers)
    base = quantize_model(model, Quantizer("fp32", fold_batchnorm=chosen[0].fold_batchnorm))
    weights = parameter_vector(base)
    changes = [parameter_vector(quantize_model(model, own, calibration)) - weights for own in chosen]
    settings = [[own.name for own in chosen], images, rtol, samples, seed, weights.sum().item(), len(split)]
    state = CurvatureState(len(chosen), problem.counts, checkpoint, digest(settings))
    served = problem.served(base)
    with tqdm(total=state.arrays["lambda_max"].size, desc="curvature", unit=" groups", leave=False) as bar:
        for row, own in enumerate(chosen):
            quantized = quantize_model(model, own, calibration)
            if np.isnan(state.arrays["change_norms"][row]):
                norms = group_gradient_norms(quantized, *problem.everything)
                length = torch.linalg.vector_norm(changes[row], dtype=torch.float64)
                state.put(row, gradient_norms=norms.numpy(), change_norms=float(length))
            done = np.flatnonzero(~np.isnan(state.arrays["trace_errors"][row])).tolist()
            bar.update(len(done))
            for group, operator in group_operators(quantized, *problem.chosen, skip=done):
                if row == 0:
                    state.put((slice(None), group), **_terms(operator, changes))
                pair = top_eigenpair(operator, state.vectors.get(group), rtol)
                traces = trace_samples(operator, operator.gradient, samples, pair.vector, seed)
                state.put_vector(row, group, pair.vector)
                found = {"lambda_max": pair.value, "residuals": pair.residual, "matvecs": pair.matvecs}
                found |= {"traces": traces.mean(), "trace_errors": traces.std(ddof=1) / np.sqrt(samples)}
                state.put((row, group), **found)
                bar.update()
                # Before the next group's graphs are built, this one's must be free.
                del operator
        precisions = [own.precision for own in chosen]
        at = precisions.index(_PROFILE_PRECISION) if _PROFILE_PRECISION in precisions else -1
        top = state.arrays["lambda_max"][0]
        state.arrays |= problem.profiles(base, served, state.reference, top, changes[at])
    state.remove()
    return Curvature(**state.arrays, profile_precision=chosen[at].name)


def _terms(operator, changes):
    """The two terms of Eq. 4 for each of some changes of the weights."""
    pairs = [(change @ operator.gradient, change @ operator(change) / 2) for change in changes]
    return dict(zip(("slopes", "bends"), np.array(pairs, dtype=np.float64).T, strict=True))


def measure_surface(model, split, precision, *, images=None, hessian=True):
    """Gradient norm and, unless `hessian` is False, lambda_max of a model that is quantized already.

    The rest of the `Curvature`, which takes much longer, is NaN, and its profiles have no steps.
    """
    problem = _Problem(model, split, images)
    state = CurvatureState(1, problem.counts)
    state.put(0, gradient_norms=group_gradient_norms(model, *problem.everything).numpy())
    if hessian:
        *chosen, num_groups = problem.chosen
        top = top_eigenvalues(model, *chosen, num_groups=num_groups)
        state.put(0, lambda_max=top.values, residuals=top.residuals, matvecs=top.matvecs)
    return Curvature(**state.arrays, profile_precision=precision)


def measure_expansion(model, split, columns, changed, images=None):
    """The terms of Eq. 4 for the weights of some `changed` models, by their names among the `columns`.

    The rest of the `Curvature` is NaN, and its profiles have no steps.
    """
    problem, weights = _Problem(model, split, images), parameter_vector(model)
    state = CurvatureState(len(columns), problem.counts)
    rows = [list(columns).index(name) for name in changed]
    changes = [parameter_vector(own) - weights for own in changed.values()]
    for group, operator in group_operators(model, *problem.chosen):
        state.put((rows, group), **_terms(operator, changes))
        del operator
    return Curvature(**state.arrays, profile_precision=next(reversed(changed)))


class _Problem:
    """The images of each group: all of them, and those that the Hessian is taken over."""

    def __init__(self, model, split, images):
        device = next(model.parameters()).device
        groups, num_groups = split.groups, len(split.group_names)
        inputs, labels = normalise(split.images.to(device)), split.labels.to(device)
        self.members = [torch.nonzero(groups == g).flatten()[:images] for g in range(num_groups)]
        self.counts = [len(own) for own in self.members]
        chosen = torch.cat(self.members)
        self.everything = inputs, labels, groups, num_groups
        self.chosen = inputs[chosen], labels[chosen], groups[chosen], num_groups

    def served(self, model):
        """The best- and the worst-served group."""
        inputs, labels, groups, num_groups = self.everything
        with torch.inference_mode():
            outputs = torch.cat([model(batch).argmax(1) for batch in inputs.split(256)])
        accuracy = group_means((outputs == labels).cpu().double().numpy(), groups.numpy(), num_groups)
        return np.array([np.nanargmax(accuracy), np.nanargmin(accuracy)])

    def profiles(self, model, served, vectors, top, change):
        """Loss of the served groups along the top eigenvector and along `change`."""
        inputs, labels, *_ = self.everything
        # To second order a step of this length along the eigenvector adds one nat: 1/2 lambda t^2 = 1.
        steepest = np.sqrt(2 / max(np.max(top[served]), 1e-6))
        lengths = np.array([steepest, float(torch.linalg.vector_norm(change))])
        losses = np.zeros((2, 2, len(_PROFILE_STEPS)))
        for position, group in enumerate(served):
            own = inputs[self.members[group]], labels[self.members[group]]
            along = functional.normalize(vectors[group].to(change), dim=0) * float(lengths[0])
            for index, direction in enumerate((along, change)):
                losses[position, index] = loss_along(model, *own, direction, _PROFILE_STEPS)
        profile = {"groups": served, "steps": _PROFILE_STEPS, "lengths": lengths, "losses": losses}
        return {f"profile_{name}": array for name, array in profile.items()}
