"""Options of the commands that watch the uncertainty while they compute forces."""

from pathlib import Path

import click

from comitia.cli import Finite
from comitia.errors import UsageError

_OPTIONS = (
    click.option(
        "--on-uncertainty", type=click.Choice(["warn", "collect", "stop"]), help="What to do above a threshold."
    ),
    click.option("--energy-threshold", metavar="EV/ATOM", type=Finite(0), help="For the uncertainty of the energy."),
    click.option(
        "--force-threshold", metavar="EV/Å", type=Finite(0), help="For that of the force on any atom (costly)."
    ),
    click.option(
        "--collect", default="extrapolation.xyz", show_default=True, help="Where collected frames are appended."
    ),
    click.option(
        "--failed", default="failed.xyz", show_default=True, help="Where a structure goes that is not finite."
    ),
)


def guard_options(command):
    """Add the options of a guard, and --failed, to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_guard(potential, atoms, on_uncertainty, energy_threshold, force_threshold, collect):
    """What compares uncertainties with thresholds, or None.

    Parameters
    ----------
    potential : what the command computes with
    atoms : ase.Atoms, or None where they are known later only
    on_uncertainty, energy_threshold, force_threshold, collect : the options
    """
    from comitia.engines.guards import UncertaintyGuard

    thresholds = energy_threshold, force_threshold
    if (on_uncertainty is None) != (thresholds == (None, None)):
        raise UsageError("--on-uncertainty and a threshold (--energy-threshold, --force-threshold) belong together")
    if on_uncertainty is None:
        return None
    uncertainty = getattr(potential, "force_uncertainty", None)
    return UncertaintyGuard(on_uncertainty, atoms, *thresholds, path=Path(collect), force_uncertainty=uncertainty)
