"""The report: every table and figure as files, readable again."""

import pandas as pd
import pytest

import samples
from quantskew.audits.audit import Audit
from quantskew.measures import fairness
from quantskew.report import summary, write_report


def test_the_folder_holds_what_was_measured(digits_audit, tmp_path):
    written = write_report(digits_audit, tmp_path / "out")
    assert all(path.stat().st_size > 0 for path in written)
    table = pd.read_csv(tmp_path / "out" / "tables" / "fvo.csv")
    assert table["value"].tolist() == pytest.approx(fairness.fvo(digits_audit)["value"].tolist())
    assert (Audit.load(tmp_path / "out" / "audit.safetensors").logits == digits_audit.logits).all()
    assert (tmp_path / "out" / "figures" / "group_accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_an_audit_of_logits_has_no_weight_tables(tmp_path):
    audit = Audit.from_logits({"fp32": [[1.0, 0.0]] * 4, "int8": [[0.0, 1.0]] * 4}, [0] * 4, [0, 0, 1, 1])
    names = {path.name for path in write_report(audit, tmp_path)}
    assert "fvo.csv" in names
    assert "sparsity.csv" not in names


def test_curvature_adds_its_tables_and_figures(curved_audit, tmp_path):
    names = {path.name for path in write_report(curved_audit, tmp_path)}
    assert {"lambda_max.csv", "lambda_max.png", "excess_loss.csv", "loss_profile.png"} <= names
    table = pd.read_csv(tmp_path / "tables" / "lambda_max.csv")
    assert table["value"].to_numpy() == pytest.approx(curved_audit.curvature.lambda_max.ravel())


CLASS_FILES = {
    "class_accuracy.csv",
    "equalized_odds.csv",
    "equalized_odds_change.csv",
    "equalized_odds_of_chance.csv",
    "demographic_parity.csv",
    "demographic_parity_change.csv",
    "class_accuracy.png",
}


def test_groups_that_differ_from_the_classes_add_their_tables_and_figure(tmp_path):
    audit = samples.random_audit()
    names = {path.name for path in write_report(audit, tmp_path)}
    assert names >= CLASS_FILES
    table = pd.read_csv(tmp_path / "tables" / "equalized_odds.csv")
    assert table["value"].tolist() == pytest.approx(fairness.equalized_odds(audit)["value"].tolist())
    table = pd.read_csv(tmp_path / "tables" / "class_accuracy.csv")
    assert table["value"].tolist() == pytest.approx(fairness.class_accuracy(audit)["value"].tolist())


def test_more_lines_than_can_be_told_apart_are_not_drawn(tmp_path, capsys):
    audit = samples.random_audit(samples=200, classes=40, precisions=("fp32", "int8"))
    assert CLASS_FILES - {path.name for path in write_report(audit, tmp_path)} == {"class_accuracy.png"}
    assert "no figure of each class in each group: more than 100 lines" in capsys.readouterr().err


def test_groups_that_are_the_classes_do_not(digits_audit, tmp_path):
    names = {path.name for path in write_report(digits_audit.select(["fp32", "int2"]), tmp_path)}
    assert not names & CLASS_FILES


def test_one_precision_alone_has_tables_and_no_figures(tmp_path):
    audit = Audit.from_logits({"fp32": [[1.0, 0.0]] * 4}, [0] * 4, [0, 0, 1, 1])
    assert {path.suffix for path in write_report(audit, tmp_path)} == {".safetensors", ".csv"}


def test_summary_says_who_and_how_many():
    audit = Audit.from_logits({"fp32": [[1.0, 0.0]] * 4, "int2": [[0.0, 0.0]] * 4}, [0] * 4, list("aabb"))
    text = summary(audit)
    assert "4 test samples in 2 groups: a 2, b 2" in text
    assert "4 null logit vectors at int2" in text
