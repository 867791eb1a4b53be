import pytest
import torch
from torch import nn

from mbrl.testing.card import StandIn
from mbrl.testing.checks import CheckError


def test_numbers_are_those_of_the_host() -> None:
    x = torch.linspace(-1.0, 1.0, 6).view(3, 2)
    with StandIn() as card:
        there = x.to(card.device)
        assert there.device == card.device
        found = ((there @ there.T).softmax(-1) + 1).cpu()
    assert torch.equal(found, (x @ x.T).softmax(-1) + 1)


def test_gradients_and_fused_steps_are_those_of_the_host() -> None:
    x, start = torch.linspace(-1.0, 1.0, 6).view(3, 2), torch.eye(2)

    def train(x: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        weight = nn.Parameter(start.clone())
        adam = torch.optim.Adam([weight], lr=0.1, fused=True)
        for _ in range(3):
            adam.zero_grad()
            (x @ weight).tanh().square().sum().backward()
            adam.step()
        return weight.detach()

    with StandIn() as card:
        found = train(x.to(card.device), start.to(card.device)).cpu()
    assert torch.equal(found, train(x, start))


def test_tensors_of_both_devices_never_meet() -> None:
    with StandIn() as card:
        there = torch.ones(3, device=card.device)
        for meet in (
            lambda: there + torch.ones(3),
            lambda: torch.ones(3) * there,
            lambda: torch.ones(2, 3) @ there,
            lambda: torch.cat((there, torch.ones(3))),
            lambda: there[torch.tensor([0, 1])],
            lambda: there.index_select(0, torch.tensor([0])),
            lambda: torch.where(torch.ones(3, dtype=torch.bool), there, 0.0),
        ):
            with pytest.raises(RuntimeError, match="different devices"):
                meet()
        # A number is sent along with the kernel, as on a card.
        assert (there * torch.tensor(2.0)).sum().item() == 6.0


def test_what_makes_the_host_wait_is_noted() -> None:
    with StandIn() as card:
        there = torch.arange(4.0, device=card.device)
        for wait in (
            lambda: there.sum().item(),
            lambda: bool((there > 1).any()),
            there.tolist,
            there.cpu,
            lambda: there[there > 1],
            (there > 1).nonzero,
            lambda: there.masked_select(there > 1),
            lambda: torch.empty(4).copy_(there),
        ):
            before = len(card.waits)
            wait()
            assert len(card.waits) > before
        before = len(card.waits)
        there[there > 1] = 0.0  # a fill of known shape
        there.index_add(0, torch.zeros(1, dtype=torch.int64, device=card.device), there[:1])
        assert len(card.waits) == before
        with pytest.raises(TypeError, match="no numpy"):
            there.numpy()


def test_uploads_are_noted_and_refused_where_there_should_be_none() -> None:
    with StandIn() as card:
        with pytest.raises(CheckError, match="updates that do not upload"), card.unattended("updates"):
            torch.tensor([1.0, 2.0], device=card.device)
        with pytest.raises(CheckError, match="updates that do not wait"), card.unattended("updates"):
            torch.ones(2, device=card.device).sum().item()
        with card.unattended("updates"):
            torch.ones(2, device=card.device).cumsum(0)


def test_nothing_is_left_behind() -> None:
    with StandIn():
        pass
    assert torch.tensor(1.0, device="meta").is_meta
    assert torch.tensor([1.0, 2.0]).tolist() == [1.0, 2.0]
    assert type(torch.Generator()) is torch.Generator
    with torch.inference_mode():
        assert torch.ones(1).is_inference()
