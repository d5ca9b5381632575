"""i-PI and force clients as programs of their own, with sockets in a folder of their own."""

import contextlib
import shutil
import subprocess
import sys
import tempfile

PATIENCE = 120  # s for what takes a few


@contextlib.contextmanager
def programs(folder):
    """A function that starts programs in this folder, `SOCKETS` in a word standing for that of the sockets; all are
    ended at the end."""
    sockets, running = tempfile.mkdtemp(prefix="ci-", dir="/tmp"), []

    def start(*command):
        command = [str(word).replace("SOCKETS", f"{sockets}/") for word in command]
        log = open(folder / f"program-{len(running)}.log", "w")  # noqa: SIM115
        running.append(subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT))
        log.close()
        return running[-1]

    try:
        yield start
    finally:
        for process in running:
            process.kill()
            process.wait()
        shutil.rmtree(sockets)


def i_pi(start, name="nve.xml"):
    """i-PI on an input."""
    from comitia.engines.ipi import find_ipi

    return start(sys.executable, "-P", find_ipi(), "-S", "SOCKETS", name)


def serve(start, *options, model="model.safetensors", names=("comitia",)):
    """A force client for the unix sockets of these names, or for what the options say."""
    servers = [word for name in names for word in ("--unix", name)]
    where = ("--template", "init.xyz", *servers, "--sockets-prefix", "SOCKETS", "--threads", "1")
    return start(sys.executable, "-m", "comitia.cli", "serve", model, *where, *options)


def ended_in_order(*processes):
    """Whether every program ends by itself, with code 0."""
    return [process.wait(PATIENCE) for process in processes] == [0] * len(processes)
