"""Gradient norms, Hessian-vector products and lambda_max against the floor and against the peers.

Run as ``python tests/benchmarks/bench_curvature.py [--data-dir UTKFACE] [--groups 0 4] [--skip-peers]``.
Without the images of UTKFace the ResNet18 has random weights, whose passes cost the same, and lambda_max is
measured on digits alone.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np
import torch
from ratios import enter, interleaved, show
from torch.nn import functional

from quantskew.audits.curvature import measure_curvature
from quantskew.datasets import Split, normalise
from quantskew.derivatives.gradients import flatten, group_gradient_norms, without_rounding
from quantskew.derivatives.hessian import HessianOperator, group_operators, top_eigenpair
from quantskew.derivatives.lanczos import top_eigenvalue, trace_samples
from quantskew.experiments import catalogue
from quantskew.quantization.ptq import quantize_model
from quantskew.quantization.quantizer import DEFAULT_PRECISIONS
from quantskew.training import models

IMAGES_PER_GROUP = 256
SMALL = "digits, small ResNet of 7 convolutions"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data-dir", help="where UTKFace is; its model is trained where it is not cached")
    arguments.add_argument("--groups", type=int, nargs="*", help="groups for the peers; default all")
    arguments.add_argument("--skip-peers", action="store_true")
    arguments.add_argument("--whole-run", action="store_true", help="measure a whole run's memory: minutes")
    options = arguments.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    memory()
    if options.whole_run:
        whole_run()
    random_model = models.build("resnet18", 5).eval()
    images = torch.randn(1280, 3, 64, 64).to(memory_format=torch.channels_last)
    labels = torch.randint(5, (1280,))
    gradient_norms(random_model, images, labels, "ResNet18, 1,280 images of 64 x 64")
    few = slice(IMAGES_PER_GROUP)
    products(random_model, images[few], labels[few], "ResNet18, 256 images")
    problems = {"digits": load("digits", None)}
    if options.data_dir:
        problems["utkface"] = load("utkface", options.data_dir)
    for name, (model, images, labels, groups) in problems.items():
        gradient_norms(model, images, labels, f"{name}, its own groups", groups)
        eigenvalues(name, model, images, labels, groups)
        if not options.skip_peers:
            chosen = range(int(groups.max()) + 1) if options.groups is None else options.groups
            peers(name, model, images, labels, groups, chosen)


def load(name, data_dir):
    """A trained model and the test images of an experiment, at most 256 a group."""
    experiment = catalogue.get(name)
    data = catalogue.load_data(experiment, data_dir)
    model, _ = catalogue.trained(experiment, data, "cpu")
    members = [
        torch.nonzero(data.test.groups == g)[:IMAGES_PER_GROUP, 0] for g in range(len(data.group_names))
    ]
    split = data.test.subset(torch.cat(members))
    return model, normalise(split.images), split.labels, split.groups


def forward_backward(model, images, labels, batch_size=128):
    for batch, answers in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        loss = functional.cross_entropy(model(batch), answers)
        torch.autograd.grad(loss, list(model.parameters()))


def gradient_norms(model, images, labels, title, groups=None):
    order = np.random.default_rng(0).permutation(len(images))
    many = {f"norms of {count} groups": order % count for count in (2, 5, 10)}
    if groups is not None:
        many["norms of its own groups"] = groups
    # The floor depends on the batch: the fastest, and the one that ten groups of these images allow.
    sizes = [len(images) // 10, 128, *([256, 360] if groups is not None else [])]
    ways = {
        f"forward and backward, batches of {size}": lambda size=size: forward_backward(
            model, images, labels, size
        )
        for size in sizes
    }
    for name, ids in many.items():
        ways[name] = lambda ids=ids: group_gradient_norms(model, images, labels, ids)
    seconds = interleaved(ways, runs=15 if len(images[0, 0]) < 32 else 3)
    floor = "forward and backward, batches of 128"
    show(f"group gradient norms, {title}", seconds, floor, "at most 1.10")
    enter(f"gradient norms, {title}", seconds[[*many][-1]] / seconds[floor], floor, 1.15)


def products(model, images, labels, title):
    """One product with each way of keeping the graph."""
    operator = HessianOperator(model, images, labels)
    rebuilt = HessianOperator(model, images, labels, memory_budget=0)
    parameters = list(model.parameters())
    graphs = [
        torch.autograd.grad(functional.cross_entropy(model(x), y), parameters, create_graph=True)
        for x, y in zip(images.split(64), labels.split(64), strict=True)
    ]
    vector = torch.randn_like(operator.gradient)
    pieces = [torch.randn_like(p) for p in parameters]

    def double_backward():
        for graph in graphs:
            torch.autograd.grad(graph, parameters, pieces, retain_graph=True)

    ways = {
        "forward and backward": lambda: forward_backward(model, images, labels, 64),
        "build the operator": lambda: HessianOperator(model, images, labels),
        "product, graphs kept": lambda: operator(vector),
        "product, graphs rebuilt": lambda: rebuilt(vector),
        "double backward, graphs kept (PyHessian)": double_backward,
    }
    seconds = interleaved(ways, runs=4)
    show(f"Hessian-vector product, {title}", seconds, "forward and backward", "at most 3")


def memory():
    """Largest memory of a process that computes two products, by number of images."""
    print("\npeak memory of one operator and two products, ResNet18, 64 x 64 (asked for: below 3 GiB)")
    for count in (64, 256, 1024, 2048):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            before, after = pool.apply(_peak, (count,))
        print(f"  {count:5} images: {after:5.2f} GiB, of which {before:.2f} before")


def _peak(count):
    model = models.build("resnet18", 5).eval()
    images = torch.randn(count, 3, 64, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    operator = HessianOperator(model, images, torch.zeros(count, dtype=torch.long))
    top_eigenvalue(operator, operator.gradient, rtol=0, max_matvecs=2)
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def whole_run():
    """Largest memory of `measure_curvature` at two precisions, 5 groups of 256 images."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, after = pool.apply(_peak_of_run)
    print(f"peak memory of a whole run: {after:.2f} GiB, of which {before:.2f} before (asked for: below 3)")


def _peak_of_run():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1280, 3, 64, 64), dtype=torch.uint8, generator=generator)
    labels, names = torch.randint(5, (1280,), generator=generator), tuple("abcde")
    split = Split(images, labels, torch.arange(1280) % 5, names, names)
    model = models.build("resnet18", 5).eval()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    measure_curvature(model, split, ["fp32", "int4"], samples=2)
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def eigenvalues(name, model, images, labels, groups):
    """lambda_max of each group and precision, as `ours` finds them."""
    print(f"\nlambda_max of {name}: value (products, residual %) by group")
    pairs, vectors = {}, {}
    for precision in DEFAULT_PRECISIONS:
        row = ours(model, images, labels, groups, precision, vectors)
        print(f"  {precision:5}", end="")
        for _, pair in row.values():
            print(f" {pair.value:8.2f} ({pair.matvecs}, {pair.residual * 100:.1f})", end="")
        print(flush=True)
        pairs |= row
    total = sum(pair.matvecs for _, pair in pairs.values())
    worst = max(pair.residual for _, pair in pairs.values())
    print(f"  {total} products for {len(pairs)} values, largest residual {worst:.2%} (asked for: 150 for 30)")
    print(f"  {sum(seconds for seconds, _ in pairs.values()):.1f} s", end="")
    if name == "digits":
        start = time.perf_counter()
        for _, operator in group_operators(model, images, labels, groups):
            trace_samples(operator, operator.gradient, 16)
        print(
            f", and {time.perf_counter() - start:.1f} s for the traces of one precision, 16 samples", end=""
        )
    print()


def ours(model, images, labels, groups, precision, vectors):
    """Seconds and eigenpair of each (precision, group); starts from `vectors` and leaves its own there."""
    found = {}
    quantized = quantize_model(model, precision)
    start = time.perf_counter()
    for group, operator in group_operators(quantized, images, labels, groups):
        pair = top_eigenpair(operator, vectors.get(group))
        del operator
        vectors[group] = pair.vector
        found[precision, group] = (time.perf_counter() - start, pair)
        start = time.perf_counter()
    return found


def peers(name, model, images, labels, groups, chosen):
    """The same values by ours, by curvlinops with eigsh and by power iteration, value by value in turns."""
    mask = torch.isin(groups, torch.tensor(list(chosen)))
    images, labels, groups = images[mask], labels[mask], groups[mask]
    results, vectors = {}, {}
    for precision in DEFAULT_PRECISIONS:
        row = ours(model, images, labels, groups, precision, vectors)
        quantized = without_rounding(quantize_model(model, precision))
        for (_, group), (seconds, pair) in row.items():
            x, y = images[groups == group], labels[groups == group]
            operator = HessianOperator(quantized, x, y)
            exact = top_eigenvalue(operator, pair.vector, 1e-5).value
            del operator
            ends = {
                "ours, residual 1 %": (seconds, pair.value, pair.matvecs),
                "curvlinops, eigsh 1e-2": eigsh_of_curvlinops(quantized, x, y),
                **power_iteration(quantized, x, y, exact, abs(pair.value / exact - 1)),
            }
            for way, (taken, value, products) in ends.items():
                results.setdefault(way, []).append((taken, products, abs(value / exact - 1)))
    print(f"\n{name}: {len(next(iter(results.values())))} values, errors against those of residual 1e-5")
    print(f"  {'':38} {'seconds':>8} {'ours = 1':>9} {'products':>9} {'median':>9} {'rms':>9} {'largest':>9}")
    first = None
    for way, rows in results.items():
        taken, products, errors = np.transpose(rows)
        first = first or taken.sum()
        shown = f"{taken.sum():8.2f} {taken.sum() / first:9.2f} {int(products.sum()):9}"
        rms = np.sqrt(np.mean(errors**2))
        print(f"  {way:38} {shown} {np.median(errors):9.1e} {rms:9.1e} {errors.max():9.1e}")
    print("  asked for: power iteration at the same error at least 2.5")


def eigsh_of_curvlinops(model, images, labels):
    from curvlinops import HessianLinearOperator
    from scipy.sparse.linalg import eigsh

    start = time.perf_counter()
    chunks = list(zip(images.split(64), labels.split(64), strict=True))
    loss, parameters = torch.nn.CrossEntropyLoss(), list(model.parameters())
    operator = HessianLinearOperator(model, loss, parameters, chunks, check_deterministic=False)
    counted = Counted(operator.to_scipy())
    value = eigsh(counted, k=1, which="LA", tol=1e-2, return_eigenvectors=False)[0]
    return time.perf_counter() - start, float(value), counted.count


class Counted:
    """A linear operator that counts its products."""

    def __new__(cls, operator):
        from scipy.sparse.linalg import LinearOperator

        def product(vector):
            counted.count += 1
            return operator @ vector

        counted = LinearOperator(operator.shape, matvec=product, dtype=np.float32)
        counted.count = 0
        return counted


def power_iteration(model, images, labels, reference, error, most=60):
    """Power iteration on the kept graph of the whole group's gradient from a random start, as PyHessian's.

    Returns (seconds, value, products) by rule of when to stop: when two estimates in a row differ by less
    than a tolerance, or, as only someone who knows the reference could, when within an error.
    """
    start = time.perf_counter()
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    loss = functional.cross_entropy(model(images), labels)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    vector = torch.randn(sum(sizes), generator=torch.Generator().manual_seed(0))
    vector, before, count, ends = functional.normalize(vector, dim=0), np.inf, 0, {}
    rules = {f"power iteration, change {tol:.0e}": tol for tol in (1e-2, 1e-3, 2e-4)}
    oracles = {"power iteration, until within 1 %": 1e-2, "power iteration, until as exact as ours": error}
    while len(ends) < len(rules) + len(oracles) and count < most:
        pieces = [v.view_as(p) for v, p in zip(vector.split(sizes), parameters, strict=True)]
        product = flatten(torch.autograd.grad(gradient, parameters, pieces, retain_graph=True))
        value, count = float(vector @ product), count + 1
        vector = functional.normalize(product, dim=0)
        now = (time.perf_counter() - start, value, count)
        for way, tol in rules.items():
            if abs(value / before - 1) < tol:
                ends.setdefault(way, now)
        for way, tol in oracles.items():
            if abs(value / reference - 1) <= max(tol, 1e-5):
                ends.setdefault(way, now)
        before = value
    return {way: ends.get(way, now) for way in (*rules, *oracles)}


if __name__ == "__main__":
    main()
