"""`comitia serve`: the force client."""

import logging
import os
from functools import partial
from pathlib import Path

import click

from comitia.cli import Finite, precision_option
from comitia.errors import UsageError

ALWAYS = ("committee_pot", "committee_uncertainty")
ON_REQUEST = ("committee_force", "committee_virial")


def _extras(context, parameter, value):
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    for name in names:
        if name not in ALWAYS + ON_REQUEST:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(ALWAYS + ON_REQUEST)}")
    return [name for name in names if name in ON_REQUEST]


@click.command(name="serve", short_help="the force client for i-PI, ASE or any server of the protocol")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--template", required=True, type=click.Path(path_type=Path), help="Structure that gives the species.")
@click.option("--unix", metavar="NAME", help="Name of the server's unix socket (i-PI's <address>), or a whole path.")
@click.option("--host", help="Host of the server; localhost if only --port is given.")
@click.option("--port", type=int, help="TCP port of the server.")
@click.option(
    "--wait", default=60.0, type=Finite(0), show_default=True, help="Seconds to wait for the server to appear."
)
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when the model is loaded.")
@click.option("--offset", type=click.Choice(["e0"]), help="Subtract the reference energies of the atoms; logged.")
@click.option("--extras", callback=_extras, metavar="NAMES", help=f"Send also: {', '.join(ON_REQUEST)} (costly).")
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the potential; default all cores.")
@precision_option
@click.option("--sockets-prefix", default="/tmp/ipi_", show_default=True, help="As i-PI's -S.")
@click.option("--timeout", type=Finite(1.0), help="Seconds of silence after which the server is lost.")
def command(
    model, template, unix, host, port, wait, ready_file, offset, extras, threads, precision, sockets_prefix, timeout
):
    """Compute energies and forces for a server of the i-PI protocol, until it says EXIT.

    \b
    comitia serve model.safetensors --template init.xyz --unix comitia
    comitia serve model.safetensors --template init.xyz --host localhost --port 31415
    """
    if (unix is None) == (port is None):
        raise UsageError("name the server by --unix NAME or by --port P (and --host H), one of them")
    if unix is not None and host is not None:
        raise UsageError("--host belongs to --port; a unix socket has no host")
    # A server that works between two requests, as i-PI does, needs the cores on which waiting threads would spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the core is loaded
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")

    import comitia
    from comitia.engines.ipi_structure import read_initial_structure
    from comitia.files import file_hash, write_atomic
    from comitia.protocol import transports
    from comitia.protocol.service import ForceService
    from comitia.threads import default_threads

    if unix is not None:
        path = transports.unix_address(unix if unix.startswith("/") else f"{sockets_prefix}{unix}")
        address, connect = f"unix:{path}", partial(transports.connect_unix, path)
    else:
        host = host or "localhost"
        address, connect = f"tcp:{host}:{port}", partial(transports.connect_tcp, host, port)
    potential = comitia.load(model, precision)
    atoms = read_initial_structure(template, potential.species)
    service = ForceService(potential, atoms, n_threads=threads, subtract_reference=offset == "e0", extras=extras)
    line = (
        f"ready: model {model} (sha256 {file_hash(model)[:12]}, "
        f"{potential.n_members} members, {precision}), {atoms.get_chemical_formula()}, "
        f"pbc {''.join('T' if p else 'F' for p in atoms.pbc)}, {threads or default_threads()} threads, server {address}"
    )
    click.echo(line)
    if ready_file is not None:
        write_atomic(ready_file, line + "\n")
    with connect(wait) as connection:
        served = service.serve(connection, silence=timeout)
    click.echo(
        f"ended by {served.reason}: {served.n_structures} structures in {served.n_requests} requests, "
        f"{served.seconds:.1f} s, of which {served.seconds_computing:.1f} s computing"
    )
