"""The commented template of a fit: it names every key there is, and every line of it is accepted."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from comitia.density import Basis
from comitia.density.optimal import FactorPrior
from comitia.settings import convert, load
from comitia.structures import Keys
from comitia.training import FitSettings
from comitia.training.settings import Committee, Groups, HoldOut, Prior, Weights, check_settings

TEMPLATE = Path(__file__).resolve().parents[2] / "inputs" / "fit.yaml"
SWITCHED_OFF = re.findall(r"^# (\w+: .*)", TEMPLATE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    "settings", [FitSettings, Basis, FactorPrior, Keys, HoldOut, Weights, Groups, Committee, Prior]
)
def test_every_key_is_named(settings):
    text = TEMPLATE.read_text(encoding="utf-8")
    missing = [field.encode_name for field in msgspec.structs.fields(settings) if f"{field.encode_name}:" not in text]
    assert missing == []


@pytest.mark.parametrize("line", SWITCHED_OFF)
def test_a_line_that_is_switched_on_is_accepted(line):
    content = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")) | yaml.safe_load(line)
    if "target_cost" in line:
        content.pop("accuracy", None)
    check_settings(convert(content, FitSettings, line))


def test_what_is_switched_on_are_the_defaults():
    content = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    assert load(TEMPLATE, FitSettings) == FitSettings(data=content["data"], cutoff=content["cutoff"])
