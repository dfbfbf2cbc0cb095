"""How long it takes until `quantskew --help` has answered, and until quantskew is imported."""

import os
import subprocess
import sys

from ratios import enter, interleaved, show

STARTS = {
    "quantskew --help": ("import sys; from quantskew.cli import main; main(['--help'])", 0.6),
    "import quantskew": ("import quantskew", 0.2),
}


def main():
    ways = {
        name: lambda code=code: subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
        for name, (code, _) in STARTS.items()
    }
    ways["python"] = lambda: subprocess.run([sys.executable, "-c", ""])
    # Of the processor, in the processes that are started.
    seconds = interleaved(ways, 5, lambda: sum(os.times()[2:4]))
    show("start", seconds, "python")
    for name, (_, goal) in STARTS.items():
        enter(name, seconds[name], "s of one processor", goal)


if __name__ == "__main__":
    main()
