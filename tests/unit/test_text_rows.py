"""Numbers from text: every digit counts, in pieces of any size, and nothing that is not a number passes."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from comitia._text import Rows
from comitia.engines.text_rows import TextRows
from comitia.errors import SeriesError


def halfway(rng, n):
    """Decimals that lie exactly between two neighbouring numbers, and just beside."""
    words = []
    for fraction in rng.integers(2**52, 2**53, size=n).tolist():
        for power in range(0, 10, 3):
            exact = (2 * fraction + 1) * 5**power
            words += [f"{exact}e-{power}", f"{exact}1e-{power + 1}", f"{10 * exact - 1}e-{power + 1}"]
    return words


def spelled(rng, n):
    """Numbers of all sizes in the notations of programs."""
    bits = rng.integers(0, 2**64, size=n, dtype=np.uint64).view(float)
    anything = bits[np.isfinite(bits)].tolist()
    usual = (rng.normal(size=n) * 10.0 ** rng.integers(-12, 12, size=n)).tolist()
    words = [repr(x) for x in anything] + [f"{x:.18e}" for x in anything]
    for form in ("%24.16e", "%16.8e", "%.17g", "%f", "%+.3E", "%.25g", "%d"):
        words += [form % x for x in usual]
    words += ["0", "-0", "0.0", "-.5", "5.", "00e5", "1e22", "1e23", "1e-400", "4.9e-324"]
    return [*words, "1.7976931348623157e308", "2.2250738585072011e-308"]


def test_every_number_is_the_one_that_python_reads():
    rng = np.random.default_rng(1)
    words = spelled(rng, 5_000) + halfway(rng, 500)
    values, steps = Rows("file", 1).read("\n".join([*words, ""]).encode())
    assert steps is None
    assert_array_equal(values[:, 0].view(np.uint64), np.array([float(word) for word in words]).view(np.uint64))


@pytest.mark.parametrize("form", ["%24.16e", "%16.8e", "%23.16e", "%26.16e", "%.16e", "%17.9e", "%24.16E"])
def test_columns_of_one_width_are_read_exactly(form):
    rng = np.random.default_rng(5)
    expected = rng.normal(size=(200, 30)) * 10.0 ** rng.integers(-120, 120, size=(200, 30))
    expected.ravel()[rng.integers(0, expected.size, size=100)] = 0
    expected[7] = rng.integers(0, 2**53, size=30) + 0.5  # halfway between two numbers once they are large
    words = [[form % x for x in row] for row in expected.tolist()]
    words[11][5:] = [f"{x!r} " for x in expected[11, 5:].tolist()]  # elsewhere, from here on
    values, _ = Rows("file", 30).read("".join(" ".join(row) + "\n" for row in words).encode())
    read = np.array([[float(word) for word in row] for row in words])
    assert_array_equal(values.view(np.uint64), read.view(np.uint64))


def test_what_is_odd_in_columns_of_one_width_is_seen():
    good = " ".join(f"{x:16.8e}" for x in np.random.default_rng(6).normal(size=6).tolist())
    assert len(Rows("file", 6).read(f"{good}\n".encode())[0]) == 1
    for place in range(3 * 17, 5 * 17):
        for odd in "x,+e -.9":
            text = f"{good[:place]}{odd}{good[place + 1 :]}"
            try:
                expected = [float(word) for word in text.split()]
            except ValueError:
                expected = []
            if len(expected) == 6 and np.isfinite(expected).all():
                assert Rows("file", 6).read(f"{text}\n".encode())[0].tolist() == [expected]
            else:
                with pytest.raises(SeriesError):
                    Rows("file", 6).read(f"{text}\n".encode())


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_pieces_of_any_size_give_the_same_rows(tmp_path, size):
    rng = np.random.default_rng(2)
    expected = rng.normal(size=(40, 3))
    lines = [f"# Step: {10 * n} \n {x!r}\t{y!r} {z!r}\r\n\n" for n, (x, y, z) in enumerate(expected.tolist())]
    (tmp_path / "rows").write_text("# first\n" + "".join(lines))
    pieces = list(TextRows(tmp_path / "rows", stepped=True).pieces(size))
    assert_array_equal(np.concatenate([values for values, _ in pieces]), expected)
    assert_array_equal(np.concatenate([steps for _, steps in pieces]), 10 * np.arange(40))


def test_a_last_line_without_an_end(tmp_path):
    (tmp_path / "rows").write_text("# a\n#b\n1 2 # two\n3 4")
    file = TextRows(tmp_path / "rows")
    assert (file.header, file.n_columns) == (["# a", "#b"], 2)
    assert [values.tolist() for values, _ in file.pieces()] == [[[1, 2]]]
    unended = TextRows(tmp_path / "rows", unended=True)
    assert np.vstack([values for values, _ in unended.pieces()]).tolist() == [[1, 2], [3, 4]]
    (tmp_path / "rows").write_text("1 2")
    assert list(TextRows(tmp_path / "rows").pieces()) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2\n3 x\n", "line 2: could not read 'x'"),
        ("1 2\n\n3 nan\n", "line 3, column 2: nan is not a finite number"),
        ("1 2\n1e999 3\n", "line 2, column 1: 1e999 is not a finite number"),
        ("1 2\n3\n", "line 2: 1 numbers, the rows before have 2"),
        ("1 2\n3 4 5 6\n", "line 2: 4 numbers, the rows before have 2"),
        ("1 2\n3 1_0\n", "line 2: could not read '1_0'"),
        ("1 2\n3 4#5\n", "line 2: could not read '4#5'"),
        ("1 2\n3 1e\n", "line 2: could not read '1e'"),
        ("1 2\n3 .\n", "line 2: could not read '.'"),
        ("1 2\n3 \x00\n", "line 2: could not read"),
    ],
)
def test_what_is_not_a_row_of_numbers_is_named(tmp_path, text, words):
    (tmp_path / "rows").write_text(text)
    for size in (4, 1_000):
        with pytest.raises(SeriesError, match=f"rows, {words}"):
            list(TextRows(tmp_path / "rows").pieces(size))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("# Step: 1\n5\n6\n", "line 3: expected a header"),
        ("# Step: 1\n5\n# Step: 2\n# Step: 3\n6\n", "line 4: step 2 has no numbers"),
        ("# Step: 1\n5\n# Step: x\n6\n", "line 3: not a step"),
        ("# Step: 1\n5\n# Step: 1234567890123456789\n6\n", "line 3: not a step"),
    ],
)
def test_rows_without_a_step_and_steps_without_a_row(tmp_path, text, words):
    (tmp_path / "rows").write_text(text)
    with pytest.raises(SeriesError, match=f"rows, {words}"):
        list(TextRows(tmp_path / "rows", stepped=True).pieces())


def test_a_column_that_nobody_asks_for_may_be_undefined(tmp_path):
    (tmp_path / "rows").write_text("1 nan 3\n4 nan 6\n")
    ((values, _),) = TextRows(tmp_path / "rows").pieces(finite={0, 2})
    assert_array_equal(values[:, [0, 2]], [[1, 3], [4, 6]])
    with pytest.raises(SeriesError, match="line 1, column 2: nan"):
        list(TextRows(tmp_path / "rows").pieces(finite={1}))
