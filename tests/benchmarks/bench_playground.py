"""How long a change in the playground takes on the digits, from the press of a button to the picture."""

import statistics
import time

from quantskew.interactive.control import playground


def main():
    control = playground(["digits"])
    # What a notebook does when it shows the playground.
    control._repr_mimebundle_()
    seconds, again = [], []
    for scheme in ("symmetric", "mse"):
        control.choose(scheme=scheme)
        for precision in ("fp16", "int8", "int3", "int2"):
            start = time.perf_counter()
            control.choose(precision=precision)
            seconds.append(time.perf_counter() - start)
        for precision in ("fp16", "int8", "int3"):
            start = time.perf_counter()
            control.choose(precision=precision)
            again.append(time.perf_counter() - start)
    median = 1e3 * statistics.median(seconds)
    print(f"a change is drawn in {median:.0f} ms (median of {len(seconds)}; 300 at most)")
    print(f"one that was made before in {1e3 * statistics.median(again):.2f} ms")


if __name__ == "__main__":
    main()
