"""Calibration on mlearn: training and test frames together, every structure predicted by a committee that saw none of
its group, every fold judged by the factors that the other folds give."""

import lzma

import numpy as np
import pytest
from mlearn import CUTOFF, fit_element


@pytest.mark.long
@pytest.mark.shared
@pytest.mark.timeout(1200)
def test_energy_uncertainties_are_as_large_as_the_errors(shared_data, tmp_path, capsys):
    counts, differences, errors = [], [], []
    for element in CUTOFF:
        together = tmp_path / f"{element}.xyz"
        with open(together, "wb") as file:
            for part in ("train", "test"):
                file.write(lzma.decompress((shared_data / "mlearn" / f"{element}_{part}.xyz.xz").read_bytes()))
        result = fit_element(element, shared_data, tmp_path, data=str(together))
        quality = result.held_out.cross_calibration()
        energy, forces = quality["energy"], quality["forces"]
        with capsys.disabled():
            print(
                f"\n{element}  {energy['count']} structures  energy: rms z {energy['rms_z']:.3f}  miscalibration area "
                f"{energy['miscalibration_area']:.3f}  NLL - constant sigma {energy['nll_difference']:+.3f} +- "
                f"{energy['nll_difference_error']:.3f}   forces: rms z {forces['rms_z']:.3f}  miscalibration area "
                f"{forces['miscalibration_area']:.3f}  NLL - constant sigma {forces['nll_difference']:+.3f}"
            )
        assert energy["count"] >= 200
        assert 0.85 < energy["rms_z"] < 1.2
        assert energy["miscalibration_area"] < 0.1
        counts.append(energy["count"])
        differences.append(energy["nll_difference"])
        errors.append(energy["nll_difference_error"])
    counts = np.array(counts)
    pooled = np.sum(counts * differences) / counts.sum()
    pooled_error = np.sqrt(np.sum((counts * errors) ** 2)) / counts.sum()
    with capsys.disabled():
        print(f"\npooled NLL - constant sigma {pooled:+.3f} +- {pooled_error:.3f} nats per structure")
    assert pooled + 2 * pooled_error < 0
