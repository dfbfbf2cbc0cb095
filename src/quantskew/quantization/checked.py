"""Copies of a model whose weights are what its forward pass uses, and the checks that they are."""

import contextlib
import copy
from collections import Counter

import torch
from torch import nn
from torch.nn.modules.batchnorm import BatchNorm1d, BatchNorm2d, BatchNorm3d, _BatchNorm
from torch.nn.utils import fusion, parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm
from torch.overrides import TorchFunctionMode

_FOLDABLE = {nn.Conv1d: BatchNorm1d, nn.Conv2d: BatchNorm2d, nn.Conv3d: BatchNorm3d}
_USES = ("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "linear")
_FOLD_TOLERANCE = 1e-3
# What computes a weight without being a parametrization.
_HOOKS = (WeightNorm, SpectralNorm, prune.BasePruningMethod)


def plain(model):
    """The model; where it is wrapped or computes weights from other tensors, a copy with plain weights.

    Weight norm, spectral norm, pruning and every other parametrization are baked in, as they are in
    evaluation mode.  What cannot be copied faithfully is refused by name.
    """
    _refuse(model)
    if not any(_inner(module) is not module or _is_computed(module) for module in model.modules()):
        return model
    result = copied(model).eval()
    known = {}
    for module in [own for own in result.modules() if _is_computed(own)]:
        for key, hook in list(module._forward_pre_hooks.items()):
            if isinstance(hook, _HOOKS):
                hook.remove(module)
                del module._forward_pre_hooks[key]
        if parametrize.is_parametrized(module):
            _bake(module, known)
    return result


def copied(model, memo=None):
    """A deep copy without compilation and data parallelism; tensors left by a training pass are detached."""
    memo = dict(memo or {})
    try:
        for module in model.modules():
            _detach(vars(module), memo)
        for module in reversed(list(model.modules())):
            if _inner(module) is not module:
                memo[id(module)] = copy.deepcopy(_inner(module), memo)
        return copy.deepcopy(model, memo)
    except (RuntimeError, TypeError, AttributeError, NotImplementedError) as error:
        why = f"the model cannot be copied ({str(error)[:200]})"
        raise ValueError(f"{why}; remove what cannot be copied from it") from error


def unparametrize(module, weights):
    """Give a copied module these weights by name in place of its parametrizations; the original's stay."""
    module.__class__ = type(module).__bases__[0]
    del module._modules["parametrizations"]
    for name, weight in weights.items():
        setattr(module, name, weight)
    # They come at the end, where a float model has its biases.
    for bias in [name for name in module._parameters if "bias" in name]:
        module.register_parameter(bias, module._parameters.pop(bias))


def fold(model):
    """A copy with each batch norm folded into its convolution where that is exact; its ``unfolded`` are left.

    A convolution is folded with the norm that alone reads it, where both are called once and nothing else
    reads or shares their tensors.
    """
    if not any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ValueError("the model has no batch norm to fold")
    result, tracer = copied(model).eval(), _Tracer()
    try:
        graph = tracer.trace(result)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ValueError(f"batch norm cannot be folded: the model cannot be traced ({error})") from error
    modules = dict(result.named_modules(remove_duplicate=False))
    owners = Counter(id(tensor) for module in result.modules() for tensor in _tensors(module).values())
    calls = Counter(id(modules[node.target]) for node in graph.nodes if node.op == "call_module")

    def alone(module):
        hooks = module._forward_hooks or module._forward_pre_hooks
        read = any(owners[id(own)] > 1 or id(own) in tracer.read for own in _tensors(module).values())
        return calls[id(module)] == 1 and not hooks and not read

    for node in list(graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, torch.fx.Node) or before.op != "call_module":
            continue
        conv, norm = modules[before.target], modules[node.target]
        fits = _FOLDABLE.get(type(conv)) is type(norm) and norm.running_var is not None
        if not (fits and len(before.users) == 1 and alone(conv) and alone(norm)):
            continue
        fused = fusion.fuse_conv_bn_eval(conv, norm)
        conv.weight, conv.bias = fused.weight, fused.bias
        for path, module in modules.items():
            if module is norm:
                result.set_submodule(path, nn.Identity().eval())
    result.unfolded = [path for path, module in result.named_modules() if isinstance(module, _BatchNorm)]
    return result


@torch.inference_mode()
def check_use(model, result, weights, images):
    """Refuse a copy whose forward pass reads the original's tensors, or another weight than a listed one.

    `weights` are those of the copy by name.
    """
    theirs = {id(t): name for name, t in [*model.named_parameters(), *model.named_buffers()]}
    for tensor in (*result.parameters(), *result.buffers()):
        theirs.pop(id(tensor), None)
    with contextlib.ExitStack() as stack, _Uses(theirs) as uses:
        for name, weight in weights.items():
            path, _, own = name.rpartition(".")
            if own == "weight":
                layer = result.get_submodule(path)
                stack.enter_context(layer.register_forward_pre_hook(uses.entering(name, weight)))
                stack.enter_context(layer.register_forward_hook(uses.leaving, always_call=True))
        return result(images)


def check_folded(logits, folded):
    """Refuse folded logits that are not the unfolded ones of the same images."""
    difference = float((logits - folded).abs().max())
    if difference > _FOLD_TOLERANCE * max(float(logits.abs().max()), 1e-6):
        raise ValueError(f"folding batch norm changes the logits (by {difference:.3g}); leave it out")


class _Uses(TorchFunctionMode):
    """Watches which tensors the functions of a forward pass are given."""

    def __init__(self, theirs):
        self.theirs, self.layers = theirs, []

    def entering(self, name, weight):
        return lambda layer, inputs: self.layers.append((name, weight))

    def leaving(self, layer, inputs, output):
        self.layers.pop()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for value in (*args, *kwargs.values()):
            if id(value) in self.theirs:
                what = f"the copy of the model still computes with {self.theirs[id(value)]} of the original"
                why = "its forward pass reaches the model by another way than its modules"
                raise ValueError(f"{what}: {why}; refer to self there")
        if self.layers and getattr(function, "__name__", "") in _USES:
            (name, weight), used = self.layers[-1], kwargs.get("weight", args[1] if len(args) > 1 else None)
            if used is not None and used is not weight and not torch.equal(used, weight):
                why = "the layer computes with another weight than this (it changes it on the way)"
                remedy = "quantizing it would not be what is audited; bake the change into the weight"
                raise ValueError(f"{name}: {why}, so that {remedy}")
        return function(*args, **kwargs)


class _Tracer(torch.fx.Tracer):
    """Remembers the tensors that the model's code reads itself, outside of their layers."""

    def __init__(self):
        super().__init__()
        self.read = set()

    def getattr(self, attr, attr_val, parameter_proxy_cache):
        """The attribute of a module."""
        if isinstance(attr_val, torch.Tensor):
            self.read.add(id(attr_val))
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def _refuse(model):
    if not isinstance(model, nn.Module):
        hint = "; build the model and give it these with load_state_dict" if isinstance(model, dict) else ""
        raise ValueError(f"a model is a torch.nn.Module, but this is a {type(model).__name__}{hint}")
    for path, module in model.named_modules():
        name = path or "the model"
        if isinstance(module, torch.jit.ScriptModule):
            raise ValueError(
                f"{name} is scripted or traced: its layers cannot be replaced; give the original"
            )
        if _inner(module) is module and "forward" in vars(module) and not _is_bound(module):
            how = "replaced on the instance (by a decorator, autocast or torch.compile)"
            remedy = "a copy would call the original; del it, or decorate the class's method"
            raise ValueError(f"the forward of {name} was {how}: {remedy}")
        for own, tensor in _tensors(module).items():
            if isinstance(tensor, nn.parameter.UninitializedTensorMixin):
                raise ValueError(f"{own} of {name} has no shape yet; call the model once on images")
            if tensor.is_meta:
                raise ValueError(f"{own} of {name} is on the meta device and has no values; load its weights")


def _tensors(module):
    """A module's own parameters and buffers by name."""
    both = module._parameters | module._buffers
    return {name: tensor for name, tensor in both.items() if tensor is not None}


def _is_bound(module):
    """Whether copying the forward that was set on a module gives that of the copy."""
    function = getattr(vars(module)["forward"], "__func__", None)
    bound = getattr(vars(module)["forward"], "__self__", None) is module
    return bound and (function is type(module).forward or not getattr(function, "__closure__", True))


def _inner(module):
    """What a compiled or data-parallel module wraps, or the module itself."""
    if "_orig_mod" in module._modules:
        return _inner(module._modules["_orig_mod"])
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return _inner(module.module) if isinstance(module, parallel) else module


def _is_computed(module):
    hooks = module._forward_pre_hooks.values()
    return parametrize.is_parametrized(module) or any(isinstance(hook, _HOOKS) for hook in hooks)


@torch.no_grad()
def _bake(module, known):
    weights = {}
    for name, chain in module.parametrizations.items():
        sources = list(chain._parameters.values()) or list(chain._buffers.values())
        own = nn.Parameter(getattr(module, name).clone(), any(tensor.requires_grad for tensor in sources))
        # Layers that shared what the weight is computed from go on sharing it.
        shared = known.setdefault(tuple(map(id, sources)), own)
        weights[name] = shared if torch.equal(shared, own) else own
    unparametrize(module, weights)


def _detach(value, memo):
    if isinstance(value, torch.Tensor) and value.grad_fn is not None:
        memo[id(value)] = value.detach().clone()
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _detach(item, memo)
