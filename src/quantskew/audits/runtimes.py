"""The model in the runtimes that ship it: ONNX Runtime and torchao, as functions from a batch to logits.

They need the extra ``runtimes``.  ONNX Runtime computes with integers in every layer that it can; torchao
quantizes linear layers alone, and leaves convolutions in floating point.
"""

import contextlib
import importlib.metadata
import io
import warnings
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from quantskew.checks import check_known
from quantskew.files import scratch
from quantskew.quantization import checked

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
            function = RUNTIMES[name](model, calibration)
            function(calibration[:2])
    except ImportError as error:
        raise ValueError(f'{name} needs {error.name}: pip install "quantskew[runtimes]"') from error
    except Exception as error:  # a runtime may raise anything
        first = (str(error).splitlines() or [""])[0][:200]
        raise ValueError(f"{name} cannot take the model ({type(error).__name__}: {first})") from error
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


def version(name):
    """The version of the package that a runtime needs, or None where it is not installed."""
    try:
        return importlib.metadata.version("onnxruntime" if name.startswith("ort:") else "torchao")
    except importlib.metadata.PackageNotFoundError:
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


def _ort(quantize=None):
    """What makes a model of ONNX Runtime; `quantize` writes a file from another with calibration images."""

    def make(model, calibration):
        import onnxruntime.quantization.shape_inference as inference
        import onnxscript  # noqa: F401 (or the exporter says that it is missing in words of its own)

        with scratch() as folder:
            if isinstance(model, nn.Module):
                own, example = checked.copied(checked.plain(model)).cpu().eval(), (calibration[:2].cpu(),)
                shapes = ({0: torch.export.Dim("batch")},)
                path = folder / "model.onnx"
                torch.onnx.export(own, example, path, dynamo=True, dynamic_shapes=shapes, verbose=False)
                model = path
            if quantize:
                inference.quant_pre_process(model, folder / "prepared.onnx")
                model = folder / "quantized.onnx"
                quantize(folder / "prepared.onnx", model, calibration.cpu())
            return session(model)[0]

    return make


def _dynamic(path, quantized, calibration):
    from onnxruntime import quantization

    quantization.quantize_dynamic(path, quantized, per_channel=True)


def _static(path, quantized, calibration):
    from onnxruntime import quantization

    parts = iter(_parts(session(path)[1], calibration))
    reader = SimpleNamespace(get_next=lambda: next(parts, None))
    form = quantization.QuantFormat.QDQ
    quantization.quantize_static(path, quantized, reader, quant_format=form, per_channel=True)


def _torchao(configuration):
    """What quantizes linear layers as a function of torchao's module says."""

    def make(model, calibration):
        from torchao import quantization

        if not isinstance(model, nn.Module) or not any(isinstance(own, nn.Linear) for own in model.modules()):
            raise ValueError("it quantizes linear layers of a torch module, and there are none")
        own = checked.copied(checked.plain(model)).eval()
        quantization.quantize_(own, configuration(quantization))
        return own

    return make


RUNTIMES = {
    "ort:fp32": _ort(),
    "ort:dynamic-int8": _ort(_dynamic),
    "ort:static-int8": _ort(_static),
    "torchao:int8": _torchao(lambda q: q.Int8WeightOnlyConfig()),
    "torchao:int4": _torchao(lambda q: q.IntxWeightOnlyConfig(torch.int4, q.PerGroup(32))),
    "torchao:int8-dynamic": _torchao(lambda q: q.Int8DynamicActivationInt8WeightConfig()),
}
