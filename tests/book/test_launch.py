"""Links to a page's source and to where it runs, and what Binder and a downloaded notebook need."""

import os
import subprocess

import pytest
import yaml
from sphinx.errors import ConfigError

from quantskew.book import rendering

PAGE = "book/chapters/02_logits"


def test_a_chapter_leads_to_its_text_and_to_where_it_runs():
    assert rendering.links(PAGE, "https://github.com/me/skew.git/", "dev") == {
        "Source": "https://github.com/me/skew/blob/dev/notebooks/02_logits.md",
        "Binder": "https://mybinder.org/v2/gh/me/skew/dev?urlpath=lab/tree/notebooks/02_logits.md",
        "Colab": "https://colab.research.google.com/github/me/skew/blob/executed/02_logits.ipynb",
    }


def test_another_page_leads_to_its_source():
    assert list(rendering.links("book/data", "https://github.com/me/skew")) == ["Source"]


def test_without_an_address_there_are_no_links():
    assert rendering.links(PAGE, "") == {}


@pytest.mark.parametrize("address", ["github.com/me/b", "https://github.com/me", "https://example.org/a/b"])
def test_an_address_that_no_link_can_be_made_of_is_refused(address):
    with pytest.raises(ConfigError, match=f"got '{address}'"):
        rendering.links(PAGE, address)


def test_the_source_of_every_page_exists(repository):
    pages = yaml.safe_load((repository / "_toc.yml").read_text())
    listed = [chapter["file"] for part in pages["parts"] for chapter in part["chapters"]]
    for page in (pages["root"], *listed):
        assert (repository / rendering.source(page)).exists(), page


def test_binder_installs_the_pins_without_cuda(repository, tmp_path):
    for name in ("pip", "python"):
        command = tmp_path / name
        # The pins are in a file that the command names last.
        shown = ['echo "RUN $(basename "$0") $*"', 'if [ -f "${@: -1}" ]; then cat "${@: -1}"; fi']
        command.write_text("\n".join(["#!/bin/bash", *shown]))
        command.chmod(0o755)
    options = {"env": {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}, "cwd": repository}
    script = repository / "binder" / "postBuild"
    lines = subprocess.run(
        [script], **options, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    pins = [line for line in lines if "==" in line]
    assert {"torch", "torchvision", "jupytext", "myst-nb"} <= {pin.split("==")[0] for pin in pins}
    assert not [pin for pin in pins if pin.startswith(("nvidia", "cuda", "triton"))]
    runs = [line for line in lines if line.startswith("RUN")]
    assert [run.split()[1] for run in runs] == ["pip", "pip", "python"]
    assert "set-default-viewer markdown" in runs[-1]
