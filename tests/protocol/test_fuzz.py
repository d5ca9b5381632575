"""Any bytes whatever give messages or ProtocolError, the same however they are cut: a share of what .ci/run does."""

import pytest
from fuzz import fuzz


@pytest.mark.parametrize(("role", "n_streams"), [("client", 40_000), ("server", 20_000), ("server of batches", 20_000)])
def test_mutated_streams(role, n_streams):
    refused = fuzz(role, n_streams, seed=1)
    assert 0.2 * n_streams < refused < n_streams  # the mutations neither miss everything nor break everything
