"""Free energies of alchemical windows by BAR, from the data of alchemtest, against what alchemlyb makes of them."""

import itertools
import json

import numpy as np
import pytest

from comitia.thermodynamics import perturb_both_ends
from comitia.units import KB

TEMPERATURE = 300.0
KT = KB * TEMPERATURE


@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")  # of what alchemlyb is made of
@pytest.mark.parametrize("leg", ["Coulomb", "VDW"])
def test_windows_of_benzene(leg, shared_data):
    load_benzene = pytest.importorskip("alchemtest.gmx").load_benzene
    extract = pytest.importorskip("alchemlyb.parsing.gmx").extract_u_nk
    expected = json.loads((shared_data / "fep_reference" / "alchemtest_gmx_benzene.json").read_text())
    windows = [KT * extract(path, T=TEMPERATURE).values for path in load_benzene().data[leg]]
    total, variance = 0.0, 0.0
    for i, (here, there) in enumerate(itertools.pairwise(windows)):
        ends = [(window[:, i], window[:, i + 1]) for window in (here, there)]
        found = perturb_both_ends(*ends, TEMPERATURE)
        total, variance = total + found.delta_f / KT, variance + (found.error / KT) ** 2
    assert total == pytest.approx(expected[f"{leg}_BAR"][0], abs=1e-8)
    value, error = expected[f"{leg}_MBAR"]
    assert abs(total - value) < 2 * error
    assert np.sqrt(variance) == pytest.approx(error, rel=0.35)
    print(
        f"{leg}: {total:.10f} kT ± {np.sqrt(variance):.4f}, of alchemlyb {expected[f'{leg}_BAR'][0]:.10f} ± {error:.4f}"
    )
