"""Calibration on real data, of energies and of forces: every structure is predicted by a committee that saw none of its
group, and every fold is judged by the factors that the other folds give."""

import lzma
import warnings

import numpy as np
import pytest
from mlearn import CUTOFF, fit_element

from comitia.settings import convert
from comitia.training import FitSettings, fit

SMALLER_BASIS = {"n_max": [8, 5, 3], "l_max": [0, 4, 2], "degree": [8, 8, 6]}  # water: frames of 192 atoms
MOLECULES = {  # file, number of frames taken at even intervals, settings
    "water": ("water_deepmd_pbe0ts/water64_pbe0ts.xyz.xz", 200, {"cutoff": 5.0, "basis": SMALLER_BASIS}),
    "ethanol": ("rmd17/ethanol_split1.xyz.xz", 250, {"cutoff": 4.5, "basis": {"max_features": 400}}),
}


def fit_together(element, shared_data, folder, **changes):
    """The fit of an element of mlearn to its training and test frames together."""
    together = folder / f"{element}.xyz"
    with open(together, "wb") as file:
        for part in ("train", "test"):
            file.write(lzma.decompress((shared_data / "mlearn" / f"{element}_{part}.xyz.xz").read_bytes()))
    return fit_element(element, shared_data, folder, data=str(together), **changes)


def fit_molecules(name, shared_data, folder, **changes):
    """The fit of water or ethanol to some frames."""
    from ase.io import read
    from ase.io.extxyz import write_xyz

    file, n_frames, given = MOLECULES[name]
    with lzma.open(shared_data / file, "rt") as opened:
        frames = read(opened, ":", format="extxyz")
    chosen = np.linspace(0, len(frames) - 1, n_frames).astype(int)
    write_xyz(folder / f"{name}.xyz", [frames[i] for i in chosen])
    settings = convert({"data": f"{name}.xyz"} | given | changes, FitSettings, name)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no frame has a virial or stress.*")
        return fit(settings, folder, folder / f"{name}.safetensors", progress=False)


@pytest.fixture(scope="module")
def quality(shared_data, tmp_path_factory):
    """A function: name and kind of committee -> calibration in numbers; each is fitted once."""
    folder, found = tmp_path_factory.mktemp("calibration"), {}

    def judge(name, kind):
        if (name, kind) not in found:
            fit_one = fit_molecules if name in MOLECULES else fit_together
            result = fit_one(name, shared_data, folder, committee={"kind": kind})
            found[name, kind] = result.held_out.cross_calibration()
        return found[name, kind]

    return judge


def line(kind, found):
    return (
        f"  {kind:6s} {found['count']:6d}  rms z {found['rms_z']:.3f}  miscalibration area "
        f"{found['miscalibration_area']:.3f}  NLL {found['nll']:+.3f}  NLL - constant sigma "
        f"{found['nll_difference']:+.3f} +- {found['nll_difference_error']:.3f}  rank correlation "
        f"{found['rank_correlation']:+.2f}"
    )


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("committee", ["subsampling", "llpr"])
@pytest.mark.parametrize("name", [*CUTOFF, *MOLECULES])
def test_uncertainties_are_as_large_as_the_errors(quality, capsys, name, committee):
    found = quality(name, committee)
    with capsys.disabled():
        print(f"\n{name}, {committee}", *(line(kind, found[kind]) for kind in ("energy", "forces")), sep="\n")
    assert found["energy"]["count"] >= 200
    for kind in ("energy", "forces"):
        assert 0.85 < found[kind]["rms_z"] < 1.2
        assert found[kind]["miscalibration_area"] < 0.06
    assert found["forces"]["nll_difference"] + 2 * found["forces"]["nll_difference_error"] < 0


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.timeout(1200)
def test_energy_uncertainties_of_mlearn_know_more_than_one_number(quality, capsys):
    counts, differences, errors = np.array(
        [
            [found["count"], found["nll_difference"], found["nll_difference_error"]]
            for found in (quality(element, "subsampling")["energy"] for element in CUTOFF)
        ]
    ).T
    pooled = np.sum(counts * differences) / counts.sum()
    pooled_error = np.sqrt(np.sum((counts * errors) ** 2)) / counts.sum()
    with capsys.disabled():
        print(f"\npooled NLL - constant sigma {pooled:+.3f} +- {pooled_error:.3f} nats per structure")
    assert pooled + 2 * pooled_error < 0
