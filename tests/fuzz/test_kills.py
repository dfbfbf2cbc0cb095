"""A few kills of the campaign that `make fuzz` runs."""

import random

import pytest
from campaign import Campaign


@pytest.mark.parametrize("task", ["train", "save"])
def test_a_killed_command_ends_as_if_nobody_had_killed_it(task, tmp_path):
    Campaign(task, tmp_path).attack(0, random.Random(0), kills=2)
