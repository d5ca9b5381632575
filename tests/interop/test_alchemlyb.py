"""Free energies of alchemical windows by BAR and MBAR, from the data of alchemtest, against those of alchemlyb."""

import bz2
import functools
import itertools
import json

import numpy as np
import pytest

from comitia.thermodynamics import MultistateEnsemble, perturb_both_ends
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE
KJ_PER_MOL = 0.008314462618 * TEMPERATURE / KT  # per eV


def window(path):
    """Enthalpies of each frame in every state, eV, but for those that all states have, of a dhdl.xvg of GROMACS."""
    columns, rows = {}, []
    with bz2.open(path, "rt") as file:
        for line in file:
            if line.startswith("@ s") and "legend" in line:
                _, number, _, legend = line.split(maxsplit=3)
                columns[legend] = int(number[1:]) + 1  # column 0 is the time; a state may stand there twice
            elif line[0] not in "#@":
                rows.append(line.split())
    values = np.array(rows, dtype=float) / KJ_PER_MOL
    states = [number for legend, number in columns.items() if "}H " in legend]
    (volume,) = (number for legend, number in columns.items() if "pV" in legend)
    return values[:, states] + values[:, [volume]]


@functools.cache
def windows_of(leg):
    from alchemtest.gmx import load_benzene

    return [window(path) for path in load_benzene().data[leg]]


@pytest.fixture(params=["Coulomb", "VDW"])
def leg(request, shared_data):
    """Name of a half of the transformation, its windows, and what alchemlyb finds, kT."""
    pytest.importorskip("alchemtest.gmx")
    windows = windows_of(request.param)
    expected = json.loads((shared_data / "fep_reference" / "alchemtest_gmx_benzene.json").read_text())
    assert len(windows) == expected[f"{request.param}_n_windows"]
    return request.param, windows, expected


@pytest.mark.shared
def test_neighbouring_windows_of_benzene(leg):
    name, windows, expected = leg
    total, variance = 0.0, 0.0
    for i, (here, there) in enumerate(itertools.pairwise(windows)):
        ends = [(frames[:, i], frames[:, i + 1]) for frames in (here, there)]
        found = perturb_both_ends(*ends, TEMPERATURE)
        total, variance = total + found.delta_f / KT, variance + (found.error / KT) ** 2
    theirs = expected[f"{name}_BAR"][0]
    print(f"{name}, BAR: {total:.10f} kT ± {np.sqrt(variance):.4f}, of alchemlyb {theirs:.10f}")
    assert total == pytest.approx(theirs, abs=1e-8)
    value, error = expected[f"{name}_MBAR"]
    assert abs(total - value) < 2 * error
    assert np.sqrt(variance) == pytest.approx(error, rel=0.35)


@pytest.mark.shared
def test_all_windows_of_benzene(leg):
    """Every window is a state that was sampled and, as a member, one that was not: both ways to the same number."""
    name, windows, expected = leg
    energies = np.concatenate(windows)
    states = np.repeat(np.arange(len(windows)), [len(frames) for frames in windows])
    found = MultistateEnsemble(
        energies[:, [0, -1]],
        states,
        np.full(len(windows), TEMPERATURE),
        TEMPERATURE,
        bias_energies=energies,
        driving=np.zeros(len(energies)),
    )
    members, errors = found.member_free_energies()
    value, error = expected[f"{name}_MBAR"]
    print(f"{name}, MBAR: {members[1]:.10f} kT ± {errors[1]:.4f}, of alchemlyb {value:.10f} ± {error:.4f}")
    assert found.free_energies[-1] == pytest.approx(value, abs=1e-8)
    assert members == pytest.approx([0.0, value], abs=1e-8)
    assert errors[0] == pytest.approx(0.0, abs=1e-8)
    assert errors[1] == pytest.approx(error, rel=0.35)  # theirs takes every frame as independent
