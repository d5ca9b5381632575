"""The fits of the mlearn data sets (Zuo et al., J. Phys. Chem. A 124, 731 (2020)) with one FIT.yaml."""

import warnings
from pathlib import Path

from comitia.settings import convert, read_yaml
from comitia.training import FitSettings, fit

SHARED_SETTINGS = Path(__file__).with_name("mlearn.yaml")
CUTOFF = {"Si": 5.0, "Cu": 4.9, "Ni": 4.8, "Li": 5.5}  # Å


def fit_element(element, shared_data, folder, **changes):
    """Fit one element with the shared settings; data sets without virials give a warning that is known."""
    file = str(shared_data / "mlearn" / f"{element}_train.xyz.xz")
    content = read_yaml(SHARED_SETTINGS) | {"data": file, "cutoff": CUTOFF[element]} | changes
    settings = convert(content, FitSettings, str(SHARED_SETTINGS))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*no frame has a virial or stress.*")
        return fit(settings, shared_data, folder / f"{element}.safetensors", progress=False)
