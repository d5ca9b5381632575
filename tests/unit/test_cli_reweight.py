"""`comitia reweight` from the command line, and against the tool that comes with i-PI."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from ipi_files import committee, write_beads, write_properties, write_restart
from numpy.testing import assert_allclose

from comitia.cli import main
from comitia.potential.mixing import pseudo_members
from comitia.units import HARTREE, KB


@pytest.fixture
def comitia(monkeypatch, capsys, tmp_path):
    """Call the command line in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["comitia", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    return call


def write_tables(folder, n_frames=2_000, seed=1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=n_frames)
    energies = 0.5 * KB * 300 * (1 + np.array([-0.05, 0.0, 0.05])) * x[:, None] ** 2
    np.savetxt(folder / "pots", energies, header="eV", fmt="%.17g")
    np.savetxt(folder / "obs", np.column_stack([x, x**2]), fmt="%.17g")
    return x, energies


def test_table_and_json_agree(comitia, tmp_path):
    x, _ = write_tables(tmp_path)
    code, out, _ = comitia(
        "reweight", "--potentials", "pots", "--observable", "obs:2", "--temperature", 300, "--units", "eV"
    )
    assert code == 0
    content = json.loads((tmp_path / "obs_2.reweight.json").read_text())
    assert content["value"] == pytest.approx(np.mean(x**2), rel=1e-12)
    assert content["members"][1] == pytest.approx(content["value"], rel=1e-12)
    assert content["committee_error"] == pytest.approx(0.05, rel=0.15)
    assert content["verdict"] == "reliable"
    assert set(content) >= {"unit", "statistical_error", "total_error", "effective_sample_size", "reason"}
    assert f"{content['value']:.8e}" in out
    assert "reliable" in out


def test_options_reach_the_average(comitia, tmp_path):
    x, energies = write_tables(tmp_path)
    np.savetxt(tmp_path / "bias", 0.1 * x, fmt="%.17g")
    arguments = ("reweight", "--potentials", "pots", "--observable", "obs:2", "--temperature", 300, "--units", "eV")
    code, *_ = comitia(
        *arguments, "--method", "direct", "--driving", 2, "--bias", "bias", "--skip", 100, "--json", "out.json"
    )
    assert code == 0
    content = json.loads((tmp_path / "out.json").read_text())
    weights = np.exp((0.1 * x - (energies[:, 0] - energies[:, 2])) / (KB * 300))[100:]
    assert content["members"][0] == pytest.approx(np.average((x**2)[100:], weights=weights), rel=1e-9)
    assert content["n_frames"] == 1_900
    code, *_ = comitia(*arguments, "--driving", "pots:3", "--json", "out.json")
    assert code == 0
    assert json.loads((tmp_path / "out.json").read_text())["members"][2] == pytest.approx(np.mean(x**2), rel=1e-10)


def test_output_of_a_path_integral_run(comitia, tmp_path):
    """All beads, member estimators for the potential, and the unit that the file names."""
    rng = np.random.default_rng(2)
    values = 1e-3 * rng.normal(size=(200, 8, 1)) ** 2 * (1 + np.array([-0.02, 0.02]))
    write_beads(tmp_path, "run.committee_pot", np.arange(200), values)
    write_properties(
        tmp_path / "run.out",
        {"step": np.arange(0, 200, 2), "potential{kelvin}": values.mean(axis=(1, 2))[::2] / 3.1668152e-6},
    )
    code, _, err = comitia(
        "reweight", "--potentials", "run.committee_pot_0", "--observable", "run.out:potential", "--temperature", 300
    )
    assert code == 0, err
    content = json.loads((tmp_path / "run.out_potential_kelvin.reweight.json").read_text())
    assert content["unit"] == "eV"
    assert content["n_beads"] == 8
    assert content["n_frames"] == 100
    assert content["value"] == pytest.approx(values[::2].mean() * HARTREE, rel=0.05)
    call = ("reweight", "--potentials", "run.committee_pot_0", "--observable", "potentials", "--temperature", 300)
    code, _, err = comitia(*call, "--temperature-to", 310)
    assert code == 2
    assert "other springs" in err
    code, *_ = comitia(
        "reweight", "--potentials", "run.committee_pot", "--observable", "potentials", "--temperature", 300
    )
    assert code == 0
    assert json.loads((tmp_path / "potentials.reweight.json").read_text())["n_frames"] == 200


def test_an_approach_to_equilibrium_is_reported(comitia, tmp_path):
    x, _ = write_tables(tmp_path)
    np.savetxt(tmp_path / "obs", x + 30 * np.exp(-np.arange(2_000) / 100), fmt="%.17g")
    call = ("reweight", "--potentials", "pots", "--units", "eV", "--observable", "obs", "--temperature", 300)
    code, _, err = comitia(*call)
    assert code == 0
    skip = int(err.split("--skip ")[1])
    assert 200 < skip < 900
    code, _, err = comitia(*call, "--skip", skip)
    assert (code, err) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--observable", "obs"), 3, "2 columns"),
        (("--observable", "obs:5"), 3, "no column 5"),
        (("--observable", "absent"), 3, "cannot be read"),
        (("--observable", "obs:1", "--driving", "7"), 2, "members 0 to 2"),
        (("--observable", "obs:1", "--driving", "nothing"), 3, "cannot be read"),
        (("--observable", "obs:1", "--skip", "5000"), 2, "leaves nothing"),
        (("--observable", "obs:1", "--skip", "1995"), 3, "frames"),
        (("--observable", "obs:1", "--json", "no/such/folder/x.json"), 3, "cannot be written"),
        (("--observable", "obs:1", "--method", "best"), 2, "direct"),
    ],
)
def test_bad_requests_are_sentences(comitia, tmp_path, arguments, code, words):
    write_tables(tmp_path)
    found, _, err = comitia("reweight", "--potentials", "pots", "--temperature", 300, *arguments)
    assert found == code
    assert words in err
    assert "Traceback" not in err
    assert not list(tmp_path.glob("*.json"))


@pytest.mark.shared
@pytest.mark.parametrize("method", ["cea", "direct"])
@pytest.mark.parametrize("column", [1, 2])
def test_equals_the_tool_of_ipi(comitia, shared_data, tmp_path, method, column):
    """Mean and member columns to 1e-8; its Error is ours, noise included, times sqrt((M - 1)/M)."""
    folder = shared_data / "committee_reweighting" / "harmonic"
    reference = json.loads((folder / "reference.json").read_text())
    temperature = reference["kT_hartree"] * HARTREE / KB
    call = ("reweight", "--potentials", folder / "POTS", "--observable", f"{folder / 'OBS'}:{column}")
    code, *_ = comitia(*call, "--temperature", repr(temperature), "--method", method, "--json", "a.json")
    assert code == 0
    content = json.loads((tmp_path / "a.json").read_text())
    mean, error, *members = np.loadtxt(folder / f"ipi_{method}.out")[column - 1]
    assert_allclose(content["value"], mean, rtol=0, atol=1e-8)
    assert_allclose(content["members"], members, rtol=0, atol=1e-8)
    assert_allclose(np.std(content["members"], ddof=1) * np.sqrt(3 / 4), error, rtol=0, atol=1e-8)
    if column == 1:
        exact = reference["analytic_cea_r2" if method == "cea" else "analytic_exact_r2"]
        assert np.all(np.abs(np.subtract(content["members"], exact)) < 4 * content["statistical_error"])
        assert content["verdict"] == "reliable"
        assert_allclose(content["committee_error"], error * np.sqrt(4 / 3), rtol=0.01)

    energies = np.loadtxt(folder / "POTS") + np.array([0, 0, 10, 0])
    np.savetxt(tmp_path / "moved", energies, fmt="%.17g")
    call = ("reweight", "--potentials", "moved", "--observable", f"{folder / 'OBS'}:{column}")
    code, *_ = comitia(*call, "--temperature", repr(temperature), "--method", method, "--json", "b.json")
    assert code == 0
    moved = json.loads((tmp_path / "b.json").read_text())
    for key in ("value", "members", "statistical_error", "committee_error"):
        assert_allclose(moved[key], content[key], rtol=0, atol=1e-8)


def test_members_that_correct_a_baseline_are_averaged_with_it(comitia, tmp_path):
    """The sum of baseline and member is what counts, whichever file it is in."""
    x, energies = write_tables(tmp_path)
    np.savetxt(tmp_path / "corrections", energies - energies[:, :1], fmt="%.17g")
    np.savetxt(tmp_path / "base", energies[:, 0], fmt="%.17g")
    np.savetxt(tmp_path / "drove", energies[:, 1], fmt="%.17g")
    given = ("reweight", "--observable", "obs:2", "--temperature", 300, "--units", "eV", "--driving", "drove")
    code, *_ = comitia(*given, "--potentials", "pots", "--json", "sums.json")
    assert code == 0
    code, *_ = comitia(*given, "--potentials", "corrections", "--baseline", "base", "--json", "parts.json")
    assert code == 0
    sums, parts = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("sums", "parts"))
    assert_allclose(parts["members"], sums["members"], rtol=1e-10)
    assert sums["members"][1] == pytest.approx(np.mean(x**2), rel=1e-12)


def test_a_run_with_i_pi_s_weighted_baseline_is_not_averaged_as_if_its_members_drove_it(comitia, tmp_path):
    energies = committee(n_beads=1)
    write_beads(tmp_path, "run.committee_pot", np.arange(len(energies)), energies)
    write_properties(tmp_path / "run.out", {"step": np.arange(len(energies)), "volume": np.ones(len(energies))})
    write_restart(tmp_path, extra="<ffcommittee name='c'> <baseline_name>base</baseline_name> </ffcommittee>")
    given = ("reweight", "--potentials", "run.committee_pot_0", "--observable", "run.out:volume", "--temperature", 300)
    for options in ((), ("--driving", 1), ("--baseline", "run.committee_pot_0:1")):
        code, _, error = comitia(*given, *options)
        assert code == 3
        assert "driven by a baseline" in error


def test_pseudo_members_are_refused(comitia, tmp_path):
    sigma = np.random.default_rng(2).normal(0.05, 0.01, 100)
    zeros = np.zeros((100, 1, 3))
    predictions = SimpleNamespace(
        energies=np.full(100, -40.0), forces=zeros, virials=zeros, member_energies=None, energy_uncertainties=sigma,
        uncertainty_gradients=zeros, uncertainty_virials=zeros,
    )  # fmt: skip
    np.savetxt(tmp_path / "pots", pseudo_members(predictions).member_energies / HARTREE, fmt="%.10f")
    np.savetxt(tmp_path / "obs", sigma)
    code, _, error = comitia("reweight", "--potentials", "pots", "--observable", "obs", "--temperature", 300)
    assert code == 3
    assert "pots: holds the two pseudo-members" in error


def test_several_observables_at_once_are_each_what_they_are_alone(comitia, tmp_path):
    write_tables(tmp_path)
    call = ("reweight", "--potentials", "pots", "--temperature", 300, "--units", "eV", "--json", "out.json")
    names = ["obs:1", "obs:2", "potentials"]
    alone = []
    for name in names:
        assert comitia(*call, "--observable", name)[0] == 0
        alone.append(json.loads((tmp_path / "out.json").read_text()))
    code, out, _ = comitia(*call, "--observable", "obs:1-2", "--observable", "potentials")
    assert code == 0
    together = json.loads((tmp_path / "out.json").read_text())
    assert [average["observable"] for average in together["averages"]] == names
    for average, single in zip(together["averages"], alone, strict=True):
        for key in ("value", "statistical_error", "committee_error", "total_error", "members"):
            assert_allclose(average[key], single[key], rtol=1e-10, atol=1e-14, err_msg=key)
        assert (average["verdict"], average["unit"]) == (single["verdict"], single["unit"])
        assert f"{average['value']:.8e}" in out
    assert together["n_frames"] == 2_000


def test_strict_ends_with_6_where_an_average_is_unreliable(comitia, tmp_path):
    _, energies = write_tables(tmp_path)
    np.savetxt(tmp_path / "pots", energies * [1, 1, 40], fmt="%.17g")
    call = ("reweight", "--potentials", "pots", "--observable", "obs:2", "--temperature", 300, "--units", "eV")
    call += ("--method", "direct", "--driving", 1, "--json", "out.json")
    assert comitia(*call)[0] == 0
    code, out, err = comitia(*call, "--strict")
    assert code == 6
    assert "obs:2: unreliable" in out
    assert "obs:2: unreliable" in err
    assert json.loads((tmp_path / "out.json").read_text())["verdict"] == "unreliable"


def test_another_temperature_and_a_figure(comitia, tmp_path):
    x, energies = write_tables(tmp_path)
    call = ("reweight", "--potentials", "pots", "--observable", "obs:2", "--temperature", 300, "--units", "eV")
    code, out, _ = comitia(*call, "--method", "direct", "--temperature-to", 310, "--json", "x.json", "--plot", "x.png")
    assert code == 0
    assert "310 K from 300 K" in out
    reduced = energies / (KB * 310) - energies.mean(axis=1)[:, None] / (KB * 300)
    expected = np.average(np.repeat(x[:, None] ** 2, 3, axis=1), weights=np.exp(-reduced), axis=0)
    content = json.loads((tmp_path / "x.json").read_text())
    assert_allclose(content["members"], expected, rtol=1e-9)
    assert (content["temperature"], content["sampled_temperature"]) == (310, 300)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("kinetic", "verdict"), [(300.0, "reliable"), (315.0, "unreliable")])
def test_a_run_that_was_hotter_than_it_should_be_is_not_trusted(comitia, tmp_path, kinetic, verdict):
    rng = np.random.default_rng(8)
    x = rng.normal(size=4_000)
    energies = 0.5 * KB * 300 / HARTREE * (1 + np.array([-0.05, 0.0, 0.05])) * x[:, None] ** 2
    write_beads(tmp_path, "run.committee_pot", np.arange(4_000), energies[:, None])
    columns = {"step": np.arange(4_000), "temperature{kelvin}": kinetic + 40 * rng.normal(size=4_000)}
    columns |= {"potential": energies.mean(axis=1), "volume": x**2}
    write_properties(tmp_path / "run.out", columns)
    call = ("reweight", "--potentials", "run.committee_pot_0", "--observable", "run.out:volume", "--temperature", 300)
    for more in ((), ("--driving", "run.out:potential")):  # one file may serve several purposes
        code, out, err = comitia(*call, "--strict", *more)
        assert code == (0 if verdict == "reliable" else 6), err
        assert verdict in out
        assert ("own temperature" in out) == (verdict == "unreliable")
