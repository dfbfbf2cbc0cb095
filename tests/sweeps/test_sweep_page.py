"""The page of a sweep, in a real run of the command with a cell that fails."""

import re

import numpy as np
import pytest
from PIL import Image

from quantskew.cli import main
from quantskew.sweeps.sweep import swept, write_page

GRID = """
audit:
  product: {experiment: [digits], epochs: [1], scheme: [banner, mse], precisions: [[fp32, int4]]}
  cells:
    - {experiment: digits, epochs: 1, learning_rate: 1.0e+30}
    - {experiment: folder, data_dir: "DATA", model: small_resnet, size: 16, epochs: 1}
"""
TAG = "<img src=x onerror=alert(1)>"
NAMES = (TAG, "$x$", "=cmd()", "two\nlines", "'\"", "y" * 200)


def test_a_sweep_leaves_a_page_and_names_what_failed(fresh_cache, tmp_path, repository, capsys):
    data = tmp_path / TAG
    for name in NAMES:
        (data / name).mkdir(parents=True)
        for number in range(6):
            Image.fromarray(np.full((16, 16, 3), 40 * number, np.uint8)).save(
                data / name / f"{TAG}{number}.png"
            )
    (tmp_path / "grid.yml").write_text(GRID.replace("DATA", str(data)))
    command = ["sweep", str(tmp_path / "grid.yml"), "--output", str(tmp_path / "out"), "--jobs", "2"]
    assert main([*command, "--root", str(repository)]) == 1
    captured = capsys.readouterr()
    assert "failed: audit-digits-epochs-1-learning_rate-1e-30" in captured.err
    assert "ValueError: the training loss became nan in epoch 0" in captured.err
    assert str(tmp_path / "out" / "table.parquet") in captured.out
    page = tmp_path / "out" / "page" / "index.html"
    assert str(page) in captured.out
    text = page.read_text()
    assert len(re.findall(r'<img[^>]+alt="[^"]{40,}"[^>]+src="_images', text)) == 3
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;" in text
    assert ",'=cmd()," in (tmp_path / "out" / "table.csv").read_text()
    assert not re.findall(r"^[^\n]*,=cmd", (tmp_path / "out" / "table.csv").read_text(), re.MULTILINE)
    assert f"{1e30:.2f}" in text, "the overview lacks the cell that failed"
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', text)
    assert [address for address in loaded if "canonical" not in address] == []
    assert not list((tmp_path / "out").glob(".page*"))


@pytest.mark.parametrize("call", [swept, lambda: write_page("out")])
def test_outside_the_repository_the_page_says_what_it_needs(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="the repository"):
        call()


@pytest.mark.parametrize("given", [3, "", "nowhere", ["a"], "."])
def test_what_is_no_folder_of_a_sweep_is_refused(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="sweep must be a folder of `quantskew sweep`; got"):
        swept(given)
