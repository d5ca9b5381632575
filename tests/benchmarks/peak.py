"""What the machine can do at most: fused multiply-adds out of registers, compiled here; and products of matrices."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

CHAINS = 12  # as in peak.c
LANES = {"avx512_double": 8, "avx512_float": 16, "avx2_double": 4, "avx2_float": 8}


def flags():
    """Instruction sets of the first processor, as the system names them."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def processor():
    """Model name, family and model of the first processor."""
    first = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first)}
    return f"{known.get('model name', 'unknown')}, family {known.get('cpu family')}, model {known.get('model')}"


def library():
    """peak.c as a library, or None where there is no compiler or the processor is none of x86-64."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or "avx2" not in flags():
        return None
    target = Path(tempfile.mkdtemp()) / "peak.so"
    source = Path(__file__).with_name("peak.c")
    made = subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-fopenmp", source, "-o", target], capture_output=True)
    if made.returncode:
        return None
    found = ctypes.CDLL(str(target))
    for name in LANES:
        getattr(found, name).restype = ctypes.c_double
        getattr(found, name).argtypes = [ctypes.c_long]
    found.parallel_loop.restype = ctypes.c_double
    found.parallel_loop.argtypes = [ctypes.c_long, ctypes.c_int]
    return found


def measure(n_repeats=20, n_rounds=2_000_000):
    """GFlop/s of one core by process CPU time, the best of some repeats.

    Returns
    -------
    {instruction set and precision, or matrix product: GFlop/s}
    """
    found, peak = library(), {}
    for name, lanes in LANES.items():
        if found is None or ("avx512" in name and "avx512f" not in flags()):
            continue
        loop = getattr(found, name)
        seconds = []
        for _ in range(n_repeats):
            begin = time.process_time()
            loop(n_rounds)
            seconds.append(time.process_time() - begin)
        peak[name] = 2e-9 * CHAINS * lanes * n_rounds / min(seconds)
    matrix = np.random.default_rng(0).normal(size=(1024, 1024))
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        matrix @ matrix
        seconds.append(time.process_time() - begin)
    return peak | {"matrix product, double": 2e-9 * 1024**3 / min(seconds)}
