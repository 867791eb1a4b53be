"""The audit finds what it looks for, and leaves torch as it was."""

import torch

from mbrl.testing.audit import Audit


def test_the_audit_finds_what_it_looks_for() -> None:
    with Audit(5) as audit:
        weight = torch.ones(5, requires_grad=True)
        if float(weight.detach().sum()) > 0:
            (2 * weight).sum().backward()
    assert len(audit.reads) == 1
    assert len(audit.copies) >= 3  # two of ones, forward and backward


def test_departures_to_numpy_and_lists_are_noted() -> None:
    before = torch.Tensor.numpy, torch.Tensor.tolist
    with Audit(rows=None) as audit:
        torch.ones(2).numpy()
        assert torch.ones(2).tolist() == [1.0, 1.0]
    assert audit.reads[:2] == ["Tensor.numpy", "Tensor.tolist"]
    assert audit.copies == []
    assert (torch.Tensor.numpy, torch.Tensor.tolist) == before
