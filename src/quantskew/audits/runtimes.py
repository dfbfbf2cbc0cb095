"""The model in the runtimes that ship it: ONNX Runtime and torchao, as functions from a batch to logits.

They need the extra ``runtimes``.  ONNX Runtime computes with integers in every layer that it can; torchao
quantizes linear layers alone, and leaves convolutions in floating point.
"""

import contextlib
import importlib.metadata
import io
import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from quantskew.audits.model import audit_model, calibration_images
from quantskew.checks import check_known, in_brief
from quantskew.files import scratch
from quantskew.quantization import checked

_ORT = ("fp32", "dynamic-int8", "static-int8")
# What torchao is told, out of its own module.
_TORCHAO = {
    "int8": lambda q: q.Int8WeightOnlyConfig(),
    "int4": lambda q: q.IntxWeightOnlyConfig(torch.int4, q.PerGroup(32)),
    "int8-dynamic": lambda q: q.Int8DynamicActivationInt8WeightConfig(),
}
RUNTIMES = (*(f"ort:{how}" for how in _ORT), *(f"torchao:{how}" for how in _TORCHAO))
# Images that are looked at together, where the model does not say how many.
_BATCH = 64


def logits_function(name, model, calibration):
    """A model in another runtime: a function from a batch of its inputs (Tensor) to logits (Tensor).

    Parameters
    ----------
    name : str
        Of `RUNTIMES`.
    model : torch.nn.Module or path
        A module, or of ONNX Runtime a file.
    calibration : Tensor of float, shape (B, ...)
        Inputs as the model expects them, two or more: the ranges of activations of ``ort:static-int8`` are
        theirs, and modules are exported for inputs like them.

    Raises
    ------
    ValueError
        If the runtime is not known or not installed, or cannot take the model, with its reason.
    """
    check_known("runtime", name, RUNTIMES)
    try:
        # Exporters print and warn of what is theirs.
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            package, _, how = name.partition(":")
            function = (_ort if package == "ort" else _torchao)(how, model, calibration)
            function(calibration[:2])
    except ImportError as error:
        raise ValueError(f'{name} needs {error.name}: pip install "quantskew[runtimes]"') from error
    except Exception as error:  # a runtime may raise anything
        raise ValueError(f"{name} cannot take the model ({in_brief(error)})") from error
    return function


def logits_functions(names, model, calibration):
    """The functions of those runtimes that take the model by name, and the reasons of the others."""
    functions, refused = {}, {}
    for name in names:
        try:
            functions[name] = logits_function(name, model, calibration)
        except ValueError as error:
            refused[name] = str(error)
    return functions, refused


def beside(audit, names, model, data):
    """An Audit of a Dataset with columns of the model in the runtimes of some names, behind its own.

    A runtime that is missing or cannot take the model is left out, with its reason in the provenance.  The
    weights of a runtime are not at hand, so that the Audit has statistics of none.
    """
    device = next(model.parameters()).device
    functions, refused = logits_functions(names, model, calibration_images(data).to(device))
    provenance = {**audit.provenance, "runtimes": {name: version(name) for name in functions}}
    provenance |= {"runtimes_left_out": refused} if refused else {}
    audit = replace(audit, weights=None, curvature=None, provenance=provenance)
    return audit.join(audit_model(functions, data, device=device)) if functions else audit


def version(name):
    """The package of a runtime with its version, or None where it is not installed."""
    package = "onnxruntime" if name.startswith("ort:") else "torchao"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return f"{package} {importlib.metadata.version(package)}"
    return None


def session(path):
    """A function that runs an ONNX file on a batch of any size, and the session of ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
    running = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def run(batch):
        logits = [running.run(None, part)[0] for part in _parts(running, batch)]
        return torch.from_numpy(np.concatenate(logits)[: len(batch)])

    return run, running


def _parts(running, batch):
    """What a session is fed of a batch; what lacks in the last part of a fixed size is its last image."""
    fed = running.get_inputs()[0]
    fixed = fed.shape[0] if isinstance(fed.shape[0], int) else None
    lacking = -len(batch) % (fixed or 1)
    whole = torch.cat([batch, batch[-1:].expand(lacking, *batch.shape[1:])]).cpu()
    return [{fed.name: part.numpy()} for part in whole.split(fixed or _BATCH)]


def _ort(how, model, calibration):
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with scratch() as folder:
        prepared, quantized = folder / "prepared.onnx", folder / "quantized.onnx"
        if isinstance(model, nn.Module):
            import onnxscript  # noqa: F401 (or the exporter says that it is missing in words of its own)

            own, example = checked.copied(checked.plain(model)).cpu().eval(), (calibration[:2].cpu(),)
            model, shapes = folder / "model.onnx", ({0: torch.export.Dim("batch")},)
            torch.onnx.export(own, example, model, dynamo=True, dynamic_shapes=shapes, verbose=False)
        if how == "fp32":
            return session(model)[0]
        quant_pre_process(model, prepared)
        if how == "dynamic-int8":
            quantization.quantize_dynamic(prepared, quantized, per_channel=True)
        else:
            parts = iter(_parts(session(prepared)[1], calibration))
            form = {"quant_format": quantization.QuantFormat.QDQ, "per_channel": True}
            reader = SimpleNamespace(get_next=lambda: next(parts, None))
            quantization.quantize_static(prepared, quantized, reader, **form)
        return session(quantized)[0]


def _torchao(how, model, calibration):
    from torchao import quantization

    if not isinstance(model, nn.Module) or not any(isinstance(own, nn.Linear) for own in model.modules()):
        raise ValueError("it quantizes linear layers of a torch module, and there are none")
    own = checked.copied(checked.plain(model)).eval()
    quantization.quantize_(own, _TORCHAO[how](quantization))
    return own
