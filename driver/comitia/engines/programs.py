"""The programs that comitia works with, and how those that are missing are installed."""

from dataclasses import dataclass

from comitia.errors import ComitiaError


@dataclass(frozen=True)
class Program:
    """A program that some commands need.

    Attributes
    ----------
    name, purpose : str
    found : str, where it is and what it is for, or None
    missing : str, the sentence that says what to do, or None
    """

    name: str
    purpose: str
    found: str | None
    missing: str | None


def programs():
    """`Program`s, in the order in which most users need them."""
    from comitia.engines.ipi import find_ipi
    from comitia.engines.lammps import find_program
    from comitia.engines.lammps_plugin import find_compiler, find_plugin
    from comitia.engines.plumed import require_kernel

    wanted = {
        ("i-PI", "comitia sample"): find_ipi,
        ("LAMMPS", "comitia lammps"): lambda: find_program()[0],
        ("compiler", "comitia lammps build"): lambda: find_compiler(wheel=False),
        ("plugin", "pair_style comitia, fix comitia"): find_plugin,
        ("PLUMED", "a bias, with any of them"): require_kernel,
    }
    return [_looked_for(name, purpose, look) for (name, purpose), look in wanted.items()]


def _looked_for(name, purpose, look):
    try:
        return Program(name, purpose, str(look()), None)
    except ComitiaError as error:
        return Program(name, purpose, None, str(error))
