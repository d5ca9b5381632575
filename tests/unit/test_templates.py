"""The commented templates of fits and of potentials: they name every key there is, and every line is accepted."""

import re
from pathlib import Path

import msgspec
import pytest
import yaml

from comitia.density import Basis
from comitia.density.optimal import FactorPrior
from comitia.engines.composed import PotentialSettings
from comitia.potential.source import Source
from comitia.settings import convert, load
from comitia.structures import Keys
from comitia.training import FitSettings
from comitia.training.settings import Committee, Groups, HoldOut, Prior, Weights, check_settings

TEMPLATE = Path(__file__).resolve().parents[2] / "inputs" / "fit.yaml"
POTENTIAL = TEMPLATE.with_name("potential.yaml")


def switched_off(path):
    """Lines that are commented out."""
    return re.findall(r"^# (\w+: .*)", path.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        *(
            (TEMPLATE, kind)
            for kind in (FitSettings, Basis, FactorPrior, Keys, HoldOut, Weights, Groups, Committee, Prior)
        ),
        *((POTENTIAL, kind) for kind in (PotentialSettings, Source)),
    ],
)
def test_every_key_is_named(path, settings):
    text = path.read_text(encoding="utf-8")
    missing = [field.encode_name for field in msgspec.structs.fields(settings) if f"{field.encode_name}:" not in text]
    assert missing == []


@pytest.mark.parametrize("line", switched_off(TEMPLATE))
def test_a_line_that_is_switched_on_is_accepted(line):
    content = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8")) | yaml.safe_load(line)
    if "target_cost" in line:
        content.pop("accuracy", None)
    check_settings(convert(content, FitSettings, line))


@pytest.mark.parametrize("line", switched_off(POTENTIAL))
def test_a_line_of_a_potential_is_accepted(line):
    convert(yaml.safe_load(POTENTIAL.read_text(encoding="utf-8")) | yaml.safe_load(line), PotentialSettings, line)


def test_what_is_switched_on_are_the_defaults():
    content = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    assert load(TEMPLATE, FitSettings) == FitSettings(data=content["data"], cutoff=content["cutoff"])
