"""`comitia serve`: the force client."""

import contextlib
import logging
import os
from functools import partial
from pathlib import Path

import click

from comitia.cli import Finite, pass_stop, precision_option
from comitia.cli.guarding import guard_options, make_guard
from comitia.errors import UsageError
from comitia.signals import PATIENCE

ALWAYS = ("committee_pot", "committee_uncertainty")
ON_REQUEST = ("committee_force", "committee_virial", "pseudo_members")
EXTRAS_HELP = (
    "Send also committee_force, committee_virial (costly); or pseudo_members: two that give i-PI's <ffcommittee> the "
    "same weighted baseline as all, whose energies then are under member_energies."
)


def _extras(context, parameter, value):
    names = [name.strip() for name in (value or "").split(",") if name.strip()]
    for name in names:
        if name not in ALWAYS + ON_REQUEST:
            raise click.BadParameter(f"{name!r} is not one of {', '.join(ALWAYS + ON_REQUEST)}")
    if "pseudo_members" in names and len(names) > 1:
        raise click.BadParameter("pseudo_members come with forces and virials of their own; name nothing else")
    return [name for name in names if name in ON_REQUEST]


@click.command(name="serve", short_help="the force client for i-PI, ASE or any server of the protocol")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--template", required=True, type=click.Path(path_type=Path), help="Structure that gives the species.")
@click.option(
    "--unix", "names", metavar="NAME", multiple=True, help="The server's unix socket (i-PI's <address>), or its path."
)
@click.option("--shm", "shared", metavar="NAME", multiple=True, help="As --unix, for <ffsocket mode='shm'>.")
@click.option("--host", help="Host of the server; localhost if only --port is given.")
@click.option("--port", "ports", type=int, multiple=True, help="TCP port of the server.")
@click.option(
    "--wait", default=60.0, type=Finite(0), show_default=True, help="Seconds to wait for the server to appear."
)
@click.option("--ready-file", type=click.Path(path_type=Path), help="Written when the model is loaded.")
@click.option("--offset", type=click.Choice(["e0"]), help="Subtract the reference energies of the atoms; logged.")
@click.option("--extras", callback=_extras, metavar="NAMES", help=EXTRAS_HELP)
@click.option("--threads", type=click.IntRange(1, 1024), help="Threads of the potential; default all cores.")
@precision_option
@click.option("--sockets-prefix", default="/tmp/ipi_", show_default=True, help="As i-PI's -S.")
@click.option("--idle", "--timeout", "idle", type=Finite(1.0), help="Seconds of silence until the server is lost.")
@click.option("--corrections", is_flag=True, help="MODEL is of corrections, and the server adds the baseline.")
@guard_options
@pass_stop
def command(
    stop, model, template, names, shared, host, ports, wait, ready_file, offset, extras, threads, precision,
    sockets_prefix, idle, corrections, failed, **guards,
):  # fmt: skip
    """Compute energies and forces for a server of the i-PI protocol, or for several at once, until they say EXIT.

    MODEL may be a POTENTIAL.yaml that composes models, ASE calculators and workers; see inputs/potential.yaml.

    Give --unix and --port as often as there are servers, or force fields of one i-PI.

    \b
    comitia serve model.safetensors --template init.xyz --unix comitia
    comitia serve model.safetensors --template init.xyz --host localhost --port 31415
    """
    if not (names or shared or ports):
        raise UsageError("name the server by --unix NAME, --shm NAME, or by --port P (and --host H)")
    if host is not None and not ports:
        raise UsageError("--host belongs to --port; a unix socket has no host")
    # A server that works between two requests, as i-PI does, needs the cores on which waiting threads would spin.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when the core is loaded
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    stop.patience = PATIENCE

    from comitia.engines.composed import load_potential
    from comitia.engines.guards import save_failed
    from comitia.engines.ipi_structure import read_initial_structure
    from comitia.files import file_hash, write_atomic
    from comitia.potential.source import refuse_corrections
    from comitia.protocol import transports
    from comitia.protocol.service import ForceService
    from comitia.threads import default_threads

    if ready_file is not None:
        ready_file.unlink(missing_ok=True)  # an earlier one
    servers = {}
    for connect, given in ((transports.connect_unix, names), (transports.connect_shm, shared)):
        paths = [transports.unix_address(name if name.startswith("/") else f"{sockets_prefix}{name}") for name in given]
        servers |= {f"unix:{path}": partial(connect, path) for path in paths}
    host = host or "localhost"
    servers |= {f"tcp:{host}:{port}": partial(transports.connect_tcp, host, port) for port in ports}
    if len(servers) < len(names) + len(shared) + len(ports):
        raise UsageError("a server is named twice; name each once")
    potential = load_potential(model, precision)
    if not (corrections or "pseudo_members" in extras):  # these are for a baseline of i-PI
        refuse_corrections(potential, model)
    atoms = read_initial_structure(template, potential.species)
    service = ForceService(
        potential, atoms, n_threads=threads, subtract_reference=offset == "e0", extras=extras,
        guard=make_guard(potential, atoms, **guards), keep_failed=partial(save_failed, failed, atoms),
    )  # fmt: skip
    line = (
        f"ready: model {model} (sha256 {file_hash(model)[:12]}, "
        f"{potential.n_members} members, {precision}), {atoms.get_chemical_formula()}, "
        f"pbc {''.join('T' if p else 'F' for p in atoms.pbc)}, {threads or default_threads()} threads, "
        f"server {', '.join(servers)}"
    )
    click.echo(line)
    if ready_file is not None:
        write_atomic(ready_file, line + "\n")
    with contextlib.ExitStack() as stack:
        stack.callback(getattr(potential, "close", lambda: None))
        connections = stack.enter_context(transports.connections(servers.values(), wait))
        ended = service.serve(connections, silence=idle)
    for address, served in zip(servers, ended, strict=True):
        which = f"{address} " if len(servers) > 1 else ""
        click.echo(
            f"{which}ended by {served.reason}: {served.n_structures} structures in {served.n_requests} requests, "
            f"{served.seconds:.1f} s, of which {served.seconds_computing:.1f} s computing"
        )
