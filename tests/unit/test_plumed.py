"""The PLUMED kernel is found where it is named, and not where it is not."""

from comitia.engines.plumed import find_kernel


def test_a_named_kernel_is_taken(tmp_path, monkeypatch):
    kernel = tmp_path / "libplumedKernel.so"
    kernel.write_bytes(b"")
    monkeypatch.setenv("PLUMED_KERNEL", str(kernel))
    assert find_kernel() == kernel


def test_a_named_kernel_that_is_not_there_is_not_replaced_by_another(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUMED_KERNEL", str(tmp_path / "nothing.so"))
    assert find_kernel() is None
