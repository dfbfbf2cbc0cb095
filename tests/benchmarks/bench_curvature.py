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
from ratios import interleaved, show
from torch.nn import functional

from quantskew import experiments, models
from quantskew.datasets import normalise
from quantskew.folding import DifferentiableModel
from quantskew.gradients import flatten, group_gradient_norms
from quantskew.hessian import starting_vector, traces
from quantskew.hessian_operator import HessianOperator, group_operators
from quantskew.lanczos import top_eigenvalue
from quantskew.ptq import quantize_model
from quantskew.quantizers import DEFAULT_PRECISIONS

IMAGES_PER_GROUP = 256
SMALL = "digits, small ResNet of 7 convolutions"


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--data-dir", help="where UTKFace is; its model is trained where it is not cached")
    arguments.add_argument("--groups", type=int, nargs="*", help="groups for the peers; default all")
    arguments.add_argument("--skip-peers", action="store_true")
    options = arguments.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    memory()
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
    experiment = experiments.get(name)
    data = experiments.load_data(experiment, data_dir)
    model, _ = experiments.trained(experiment, data, "cpu")
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
    many = {f"{count} groups": order % count for count in (2, 5, 10)}
    if groups is not None:
        many = {"norms of its own groups": groups}
    ways = {"forward and backward, batches of 128": lambda: forward_backward(model, images, labels)}
    for name, ids in many.items():
        ways[name] = lambda ids=ids: group_gradient_norms(model, images, labels, ids)
    seconds = interleaved(ways, runs=5 if len(images[0, 0]) < 32 else 3)
    show(f"group gradient norms, {title}", seconds, "forward and backward, batches of 128", "at most 1.10")


def products(model, images, labels, title):
    """One product with each way of keeping the graph."""
    differentiable = DifferentiableModel(model, images[:2])
    operator = HessianOperator(differentiable, images, labels)
    rebuilt = HessianOperator(differentiable, images, labels, memory_budget=0)
    parameters = list(model.parameters())
    graphs = [
        torch.autograd.grad(functional.cross_entropy(model(x), y), parameters, create_graph=True)
        for x, y in zip(images.split(64), labels.split(64), strict=True)
    ]
    vector = torch.randn(operator.size)
    pieces = [torch.randn_like(p) for p in parameters]

    def double_backward():
        for graph in graphs:
            torch.autograd.grad(graph, parameters, pieces, retain_graph=True)

    ways = {
        "forward and backward": lambda: forward_backward(model, images, labels, 64),
        "build the operator": lambda: HessianOperator(differentiable, images, labels),
        "product, graphs kept": lambda: operator(vector),
        "product, graphs rebuilt": lambda: rebuilt(vector),
        "double backward, graphs kept (PyHessian)": double_backward,
    }
    seconds = interleaved(ways, runs=4)
    show(f"Hessian-vector product, {title}", seconds, "forward and backward", "at most 2.3")


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
    operator = HessianOperator(
        DifferentiableModel(model, images[:2]), images, torch.zeros(count, dtype=torch.long)
    )
    top_eigenvalue(operator, operator.gradient, rtol=0, max_matvecs=2)
    return before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def eigenvalues(name, model, images, labels, groups):
    """lambda_max of each group and precision, each precision started from the one before."""
    print(f"\nlambda_max of {name}: value (products, residual %) by group")
    vectors, total, worst, seconds = {}, 0, 0.0, 0.0
    for precision in DEFAULT_PRECISIONS:
        cells = []
        start = time.perf_counter()
        for group, operator in group_operators(quantize_model(model, precision), images, labels, groups):
            pair = top_eigenvalue(operator, starting_vector(operator, vectors.get(group)))
            vectors[group] = pair.vector
            total, worst = total + pair.matvecs, max(worst, pair.residual)
            cells.append(f"{pair.value:8.2f} ({pair.matvecs}, {pair.residual * 100:.1f})")
        seconds += time.perf_counter() - start
        print(f"  {precision:5}", *cells)
    count = len(vectors) * len(DEFAULT_PRECISIONS)
    print(f"  {total} products for {count} values, largest residual {worst:.2%}")
    start = time.perf_counter()
    if name == "digits":
        traces(model, images, labels, groups)
        print(
            f"  {seconds:.1f} s in all; traces of one precision with 16 samples "
            f"{time.perf_counter() - start:.1f} s"
        )


def peers(name, model, images, labels, groups, chosen):
    """Seconds for one lambda_max: ours from the gradient, power iteration, and curvlinops with eigsh."""
    import curvlinops
    from scipy.sparse.linalg import eigsh

    print(f"\none lambda_max of {name} (seconds, products, error against residual 1e-4)")
    totals = np.zeros(4)
    for group in chosen:
        x, y = images[groups == group], labels[groups == group]
        for precision in ("fp32", "int4", "int2"):
            quantized = quantize_model(model, precision)
            parameters = list(quantized.parameters())

            def ours(rtol=1e-2, net=quantized, x=x, y=y):
                operator = HessianOperator(DifferentiableModel(net, x[:2]), x, y)
                pair = top_eigenvalue(operator, operator.gradient, rtol)
                return pair.value, pair.matvecs

            def arnoldi(net=quantized, parameters=parameters, x=x, y=y):
                chunks = list(zip(x.split(64), y.split(64), strict=True))
                hessian = curvlinops.HessianLinearOperator(
                    net, torch.nn.CrossEntropyLoss(), parameters, chunks, check_deterministic=False
                ).to_scipy()
                counted = Counted(hessian)
                value = eigsh(counted, k=1, which="LA", tol=1e-2, return_eigenvectors=False)[0]
                return value, counted.count

            reference = ours(rtol=1e-4)[0]
            cells = []
            stop_at = None
            for way in (ours, arnoldi):
                start = time.perf_counter()
                value, count = way()
                cells.append((time.perf_counter() - start, count, abs(value / reference - 1)))
                stop_at = stop_at or cells[0][2]
            rule, same = power_iteration(quantized, x, y, reference, max(stop_at, 1e-2))
            totals += [cells[0][0], cells[1][0], rule[0], same[0]]
            cells += [rule, same]
            texts = [f"{s:7.2f} s {n:3} {e:7.2%}" for s, n, e in cells]
            print(f"  group {group} {precision:5}", " | ".join(texts))
    print(
        "  columns: ours | curvlinops + eigsh(tol=1e-2) | power iteration, tol 1e-3 | the same to 1 % error"
    )
    print("  in all, in ours: " + "  ".join(f"{t / totals[0]:.2f}" for t in totals))


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


def power_iteration(model, images, labels, reference, error):
    """Power iteration on the kept graph of the whole group's gradient, from a random start.

    Returns (seconds, products, error) when two estimates in a row differ by less than 1e-3, and when the
    estimate first stays within `error` of the reference, which only someone who knows it could tell.
    """
    start = time.perf_counter()
    parameters = list(model.parameters())
    loss = functional.cross_entropy(model(images), labels)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    vector = functional.normalize(torch.randn(sum(p.numel() for p in parameters), generator=generator), dim=0)
    estimates, seconds, by_rule = [], [], None
    while len(estimates) < 100:
        pieces = [
            v.view_as(p)
            for v, p in zip(vector.split([p.numel() for p in parameters]), parameters, strict=True)
        ]
        product = flatten(torch.autograd.grad(gradient, parameters, pieces, retain_graph=True))
        estimates.append(float(vector @ product))
        vector = functional.normalize(product, dim=0)
        seconds.append(time.perf_counter() - start)
        if by_rule is None and len(estimates) > 1 and abs(estimates[-1] / estimates[-2] - 1) < 1e-3:
            by_rule = len(estimates)
        if by_rule and abs(estimates[-1] / reference - 1) <= error:
            break
    errors = [abs(e / reference - 1) for e in estimates]
    within = next((i for i, e in enumerate(errors) if e <= error), len(errors) - 1)
    ends = [(by_rule or len(errors)) - 1, within]
    return [(seconds[i], i + 1, errors[i]) for i in ends]


if __name__ == "__main__":
    main()
