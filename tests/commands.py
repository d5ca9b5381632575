"""The commands on files that are good, and the folder before and after."""

from pathlib import Path

from models import crystal, pair_energy_and_forces

FIT = "data: data.xyz\ncutoff: 4.5\nmembers: 4\nbasis: {n_max: [3, 2, 0], l_max: [0, 1, 0]}\n"
COMMANDS = {
    "fit": ["fit", "fit.yaml", "-q"],
    "eval": ["eval", "model.safetensors", "data.xyz"],
    "select": ["select", "data.xyz", "-o", "chosen.xyz", "--count", "3", "--model", "model.safetensors", "-q"],
    "label": ["label", "data.xyz", "--with", "model:model.safetensors", "-o", "labelled.xyz", "-q"],
    "inspect": ["inspect", "model.safetensors"],
    "serve": ["serve", "model.safetensors", "--template", "init.xyz", "--unix", "comitia-nobody", "--wait", "0.1"],
    "sample": ["sample", "nve.xml", "--model", "model.safetensors", "--quiet"],
    "run": ["run", "study.yaml"],
}


def labelled(n_frames=12, header=""):
    """Extended XYZ of small crystals with energies and forces."""
    frames = []
    for seed in range(n_frames):
        atoms = crystal((18,), (1, 1, 1), rattle=0.2, seed=seed)
        energy, forces = pair_energy_and_forces(atoms, 5.0)
        lattice = " ".join(f"{x:.8f}" for x in atoms.cell.array.ravel())
        rows = ["Ar " + " ".join(f"{x:.8f}" for x in (*r, *f)) for r, f in zip(atoms.positions, forces, strict=True)]
        comment = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3:forces:R:3 energy={energy:.8f}{header}'
        frames.append("\n".join([str(len(atoms)), comment, *rows]) + "\n")
    return "".join(frames)


def listing():
    """Everything below the working folder, and when it was written."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in Path().rglob("*"))
