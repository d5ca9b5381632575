"""`comitia inspect`: what is inside a model file."""

from pathlib import Path

import click

from comitia.errors import ModelError


def description(potential):
    """Lines that say what a potential is, with units."""
    from ase.data import chemical_symbols

    from comitia.potential.source import source_name

    descriptor, metadata = potential.descriptor, potential.metadata
    symbols = [chemical_symbols[z] for z in potential.species]
    orders = ", ".join(f"{count} of order {order}" for order, count in descriptor.orders.items())
    reference = "  ".join(
        f"{symbol} {value:.6f} eV" for symbol, value in zip(symbols, potential.reference_energies, strict=True)
    )
    members = f"{potential.n_members}"
    if potential.n_members > 1:
        centre = "re-centred on the fit to all data" if potential.recentred else "mean of the members"
        members += f"  alpha {potential.alpha_energy:.4f} (energy)  {potential.alpha_forces:.4f} (forces)  {centre}"
        members += f"  floor {potential.force_floor:.4f} eV/Å (forces)"
    lines = [
        f"species             {' '.join(symbols)}",
        f"cutoff              {potential.cutoff:g} Å",
        f"features            {descriptor.n_features} per species: {orders}",
        f"radial functions    {descriptor.n_radial}, l_max {descriptor.l_max}",
        f"members             {members}",
        f"reference energies  {reference}",
        f"repulsive core      {'ZBL' if potential.core is not None else 'none'}",
        "units               energy eV, length Å, forces eV/Å, virial eV, stress eV/Å³",
    ]
    if descriptor.pseudo_species is not None:
        lines.append(f"pseudo-species      {len(descriptor.contraction)}; rows of the contraction u by element:")
        lines += [
            f"  {symbol:<2} " + " ".join(f"{value:8.4f}" for value in column)
            for symbol, column in descriptor.pseudo_species.items()
        ]
    if potential.corrects is not None:
        lines.append(f"corrections to      {source_name(potential.corrects)}; its energies are no total energies")
    training = metadata.get("data")
    if training:
        counts = ", ".join(f"{number} {name}" for name, number in training["structures"].items() if number)
        lines.append(f"data                {training['file']}: {counts}; sha256 {training['sha256'][:16]}")
    versions = metadata.get("versions")
    if versions:
        lines.append(f"made with           {'  '.join(f'{name} {version}' for name, version in versions.items())}")
    return lines


@click.command(name="inspect", short_help="what is inside a model file")
@click.argument("model", metavar="MODEL", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the metadata of the file as JSON instead.")
@click.option(
    "--figure",
    metavar="MAP.png",
    type=click.Path(path_type=Path),
    help="Draw the map of the elements that the contraction to pseudo-species makes.",
)
def command(model, as_json, figure):
    """Species, cutoff, features, members, calibration, errors and origin of a model, with units.

    \b
    comitia inspect silicon.safetensors
    """
    from comitia.files import to_json
    from comitia.potential import load
    from comitia.training.summary import error_lines

    potential = load(model)
    if figure is not None:
        if potential.descriptor.pseudo_species is None:
            raise ModelError(
                f"{model}: its species are not contracted; fit it with `basis: {{pseudo_species: 2}}` for a map"
            )
        from comitia.report.element_map import element_map_figure

        element_map_figure(potential.species, potential.descriptor.contraction, figure)
    if as_json:
        click.echo(to_json(potential.metadata), nl=False)
        return
    try:
        lines = description(potential) + error_lines(potential.metadata.get("errors", {}))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ModelError(f"{model}: its metadata are not those of a fit; `--json` prints them") from error
    click.echo("\n".join(lines))
