"""`pair_style comitia` says what the same model says in Python, on any number of ranks and threads."""

import numpy as np
import pytest
import systems
from lammps_runs import QUANTITIES, VOIGT, lammps_atoms, lmp, opening, read_found, read_thermo, write_data
from numpy.testing import assert_allclose

SPECIES = (8, 14)
KINDS = {
    "orders 1 to 3, core": {},
    "orders 1 and 2": {"n_max": [6, 4, 0], "l_max": [0, 4, 0]},
    "orders 1 to 4": {"n_max": [6, 4, 2, 2], "l_max": [0, 4, 3, 2], "max_features": 400},
    "orders 1 to 4 as drawn, functions of l": {"arrays": {"per_l": True}},
    "orders 1 to 4 as drawn, pseudo-species": {"arrays": {"n_channels": 3, "per_species": True}},
}


def model(kind, n_members=5):
    options = dict(KINDS[kind])
    if "arrays" in options:
        options["arrays"] = systems.random_arrays(SPECIES, 4, **options["arrays"])
    return systems.potential(SPECIES, n_members=n_members, **options)


def compared(found, expected, tolerance):
    """Every number that both have, relative to the largest of its kind."""
    virial = expected.virial[VOIGT]
    scale = max(np.abs(expected.forces).max(), 0.1)
    assert_allclose(found.energy, expected.energy, rtol=tolerance)
    assert_allclose(found.members, expected.member_energies, rtol=tolerance)
    assert_allclose(found.sigma, expected.energy_uncertainty, rtol=1e3 * tolerance)  # a difference of energies
    assert_allclose(found.forces, expected.forces, rtol=0, atol=tolerance * scale)
    assert_allclose(found.virial, virial, rtol=0, atol=tolerance * (np.abs(virial).max() + scale))
    assert_allclose(found.atomic_virial, virial, rtol=0, atol=tolerance * (np.abs(virial).max() + scale))
    assert_allclose(found.energies.sum(), expected.energy, rtol=tolerance)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_python(kind, plugin_cache, tmp_path):
    potential = model(kind)
    potential.save(tmp_path / "model.safetensors")
    cases = {name.replace(" ", "-").replace(",", ""): atoms for name, atoms in systems.structures(SPECIES).items()}
    cases["alloy"] = systems.crystal(SPECIES, (2, 2, 1), 5)
    commands, references = [], {}
    for name, atoms in cases.items():
        references[name] = lammps_atoms(atoms)
        write_data(tmp_path / f"{name}.data", references[name], SPECIES)
        quantities = [line.replace("DUMP", f"{name}.dump") for line in QUANTITIES]
        commands += ["clear", *opening(atoms, SPECIES, f"{name}.data", "model.safetensors"), *quantities, "run 0"]
        commands.append(f'print "end of {name}"')
    text = lmp(tmp_path, commands, plugin_cache)
    for name, atoms in references.items():
        part = text.split(f"end of {name}\n")[0]
        found = read_found(part, tmp_path / f"{name}.dump", potential.n_members)
        expected = potential.compute(atoms, n_threads=1)
        compared(found, expected, 1e-9)
        e0 = potential.reference_energies[potential.descriptor.species_index(atoms.numbers)]
        assert_allclose(found.energies, expected.atomic_energies + e0, rtol=1e-9)


def run_alloy(folder, cache, potential, n_steps, ranks=1, threads=1, options=()):
    """`Found` after some steps of a hot crystal, whose lists are made again at every step."""
    potential.save(folder / "model.safetensors")
    atoms = lammps_atoms(systems.crystal(SPECIES, (2, 2, 2), 5))
    write_data(folder / "alloy.data", atoms, SPECIES)
    quantities = [line.replace("DUMP", "alloy.dump") for line in QUANTITIES]
    commands = [
        *opening(atoms, SPECIES, "alloy.data", "model.safetensors"),
        "velocity all create 600 5 loop geom",
        "neigh_modify every 1 delay 0 check no",
        "timestep 0.0005",
        "fix nve all nve",
        *quantities,
        f"run {n_steps}",
    ]
    text = lmp(folder, commands, cache, ranks, threads, options=options)
    lines = (folder / "alloy.dump").read_text().splitlines()
    (folder / "alloy.dump").write_text("\n".join(lines[-len(atoms) - 9 :]))
    return read_found(text, folder / "alloy.dump", potential.n_members)


def test_ranks_and_threads_agree(plugin_cache, tmp_path):
    potential = model("orders 1 to 3, core")
    one = run_alloy(tmp_path, plugin_cache, potential, 10)
    for ranks, threads in ((2, 1), (4, 1), (1, 2), (2, 2)):
        other = run_alloy(tmp_path, plugin_cache, potential, 10, ranks, threads)
        for name, value in vars(one).items():
            scale = np.abs(value).max()
            assert_allclose(
                getattr(other, name), value, rtol=0, atol=1e-10 * scale, err_msg=f"{name}, {ranks} ranks, {threads}"
            )


def test_ranks_without_atoms(plugin_cache, tmp_path):
    """A slab and an atom alone, on four ranks of which most have ghosts only, or nothing."""
    potential = model("orders 1 and 2")
    potential.save(tmp_path / "model.safetensors")
    commands, expected = [], {}
    for name, title in (("slab", "slab"), ("alone", "one atom, isolated")):
        atoms = lammps_atoms(systems.structures(SPECIES)[title])
        expected[name] = potential.compute(atoms)
        write_data(tmp_path / f"{name}.data", atoms, SPECIES)
        quantities = [line.replace("DUMP", f"{name}.dump") for line in QUANTITIES]
        script = opening(atoms, SPECIES, f"{name}.data", "model.safetensors")
        commands += ["clear", "processors 1 1 4", *script, *quantities, "run 0", f'print "end of {name}"']
    text = lmp(tmp_path, commands, plugin_cache, 4)
    for name, prediction in expected.items():
        part = text.split(f"end of {name}\n")[0]
        compared(read_found(part, tmp_path / f"{name}.dump", potential.n_members), prediction, 1e-9)


def test_same_input_same_bits(plugin_cache, tmp_path):
    potential = model("orders 1 to 3, core")
    first, again = (run_alloy(tmp_path, plugin_cache, potential, 5, 1, 2) for _ in range(2))
    for name, value in vars(first).items():
        assert np.array_equal(getattr(again, name), value), name


def test_virial_is_the_strain_derivative(plugin_cache, tmp_path):
    potential = model("orders 1 to 3, core")
    potential.save(tmp_path / "model.safetensors")
    atoms = lammps_atoms(systems.structures(SPECIES)["triclinic"])
    step, commands = 1e-4, []
    places = ((0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1))  # strains that keep the cell lower triangular
    names = {(a, b, sign): f"{a}{b}{sign}" for a, b in places for sign in (-1, 1)}
    for (a, b, sign), name in names.items():
        strain = np.zeros((3, 3))
        strain[a, b] = sign * step
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        write_data(tmp_path / f"{name}.data", strained, SPECIES)
        commands += ["clear", *opening(atoms, SPECIES, f"{name}.data", "model.safetensors")]
        commands += ["thermo_style custom step pe", "thermo_modify format float %.17g", "run 0", f'print "end {name}"']
    commands += ["clear", *opening(atoms, SPECIES, "00.data", "model.safetensors")]
    write_data(tmp_path / "00.data", atoms, SPECIES)
    commands += [line.replace("DUMP", "00.dump") for line in QUANTITIES] + ["run 0"]
    text = lmp(tmp_path, commands, plugin_cache)
    energy = {place: read_thermo(text.split(f"end {name}\n")[0])[-1][1] for place, name in names.items()}
    virial = read_found(text, tmp_path / "00.dump", potential.n_members).virial
    slopes = [-(energy[a, b, 1] - energy[a, b, -1]) / (2 * step) for a, b in places]
    assert_allclose(virial, slopes, rtol=0, atol=1e-6 * np.abs(virial).max())


def test_hybrid_overlay_adds_and_leaves_other_types_alone(plugin_cache, tmp_path):
    """Two types of the model beside one of argon, under Lennard-Jones for all pairs."""
    potential = model("orders 1 to 3, core")
    potential.save(tmp_path / "model.safetensors")
    atoms = lammps_atoms(systems.crystal((*SPECIES, 18), (2, 2, 1), 5))
    write_data(tmp_path / "mixed.data", atoms, (*SPECIES, 18))
    pair = "hybrid/overlay lj/cut 5.0 comitia"
    lj = [f"pair_coeff {i} {j} lj/cut 0.01 2.0" for i in (1, 2, 3) for j in (1, 2, 3) if i <= j]
    ours = "pair_coeff * * comitia model.safetensors O Si NULL"
    commands = []
    for terms in (pair, "lj/cut 5.0"):
        commands += [
            "clear",
            *opening(atoms, (), "mixed.data", "", terms, ours if terms == pair else "pair_coeff * * 0.01 2.0"),
        ]
        commands += [line if terms == pair else line.replace(" lj/cut", "") for line in lj]
        commands += ["compute one all pe/atom", "compute sum all reduce sum c_one", "thermo_style custom step pe c_sum"]
        commands += ["compute members all pair comitia", "compute sigma all comitia/sigma"] if terms == pair else []
        commands += ["thermo_style custom step pe c_sum c_sigma c_members[*]"] if terms == pair else []
        commands += ["thermo_modify format float %.17g", "run 0", f'print "end of {terms}"']
    both, alone = lmp(tmp_path, commands, plugin_cache).split(f"end of {pair}\n")[:2]
    row, lj_energy = read_thermo(both)[-1], read_thermo(alone)[-1][1]
    expected = potential.compute(atoms[np.isin(atoms.numbers, SPECIES)])
    assert_allclose(row[1], expected.energy + lj_energy, rtol=1e-9)
    assert_allclose(row[2], row[1], rtol=1e-12)
    assert_allclose(row[3], expected.energy_uncertainty, rtol=1e-9)
    assert_allclose(row[5:], expected.member_energies, rtol=1e-9)


COMMUNICATION = {
    "as it is": [],
    "too short": ["comm_modify cutoff 1.0"],
    "too short for each type": ["neighbor 2.0 multi", "comm_modify mode multi cutoff/multi * 1.0"],
    "without a skin": ["comm_modify cutoff 1.0", "neighbor 0.0 bin"],
}


@pytest.mark.parametrize("ranks", [1, 2, pytest.param(4, marks=pytest.mark.long)])
def test_ghost_atoms_reach_as_far_as_the_model(ranks, plugin_cache, tmp_path):
    """LAMMPS lengthens a `comm_modify cutoff` that is too short, and goes round a box smaller than the cutoff."""
    potential = model("orders 1 and 2")
    potential.save(tmp_path / "model.safetensors")
    cases = {}
    for name in ("bulk", "cell below the cutoff"):
        atoms = lammps_atoms(systems.structures(SPECIES)[name])
        write_data(tmp_path / f"{name.split()[0]}.data", atoms, SPECIES)
        cases[name.split()[0]] = potential.compute(atoms, n_threads=1)
    commands = []
    for case in cases:
        for number, said in enumerate(COMMUNICATION.values()):
            begin = opening(systems.structures(SPECIES)["bulk"], SPECIES, f"{case}.data", "model.safetensors")
            quantities = [line.replace("DUMP", f"{case}{number}.dump") for line in QUANTITIES]
            commands += ["clear", *begin, *said, *quantities, "run 0", f'print "end of {case}{number}"']
    text = lmp(tmp_path, commands, plugin_cache, ranks)
    for case, expected in cases.items():
        for number in range(len(COMMUNICATION)):
            part, text = text.split(f"end of {case}{number}\n", 1)
            compared(read_found(part, tmp_path / f"{case}{number}.dump", potential.n_members), expected, 1e-9)
