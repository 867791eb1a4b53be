import functools
import re
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mbrl.core.device import CPU, clock_on, describe_device, find_device, on_device
from mbrl.core.errors import ConfigError
from mbrl.core.rng import RngStreams
from mbrl.testing.card import StandIn


def test_the_cpu_is_everywhere() -> None:
    assert find_device("cpu") == CPU
    assert describe_device(CPU) == {"device": "cpu"}
    assert clock_on(CPU)() <= clock_on(CPU)()


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:100", "CPU", "cpu:0", "cpu\n"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="is no device; legal: cpu, cuda"):
        find_device(name)


def test_a_build_without_cuda_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    version = re.escape(torch.__version__)
    with pytest.raises(ConfigError, match=f"torch {version} has none. Remedy: install"):
        find_device("cuda")


def test_a_machine_without_a_card_is_told_apart_from_a_build_without_cuda(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=r"\(CUDA 12.8\) finds no card here. Remedy: .*nvidia-smi"):
        find_device("cuda:0")


def test_a_card_has_a_number_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("cuda") == torch.device("cuda", 0)
    assert find_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(ConfigError, match=r"finds 2 card\(s\) here, cuda:0 to cuda:1"):
        find_device("cuda:2")


class Pair(NamedTuple):
    first: Tensor
    second: Tensor


class Net(nn.Module):
    """A weight and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("mean", torch.zeros(2))


class Thing:
    """Plain attributes, one of which another object shares, and a way back."""

    def __init__(self, shared: Tensor) -> None:
        self.shared, self.pair, self.owner, self.size = shared, Pair(shared, shared + 1), self, 3

    def first(self) -> Tensor:
        return self.shared


def test_what_lies_there_already_is_not_copied() -> None:
    things = [Thing(torch.ones(2)), Net(), {"a": 1}]
    assert on_device(things, CPU) is things


def test_an_object_graph_keeps_its_shape() -> None:
    shared = torch.ones(2)
    thing, log = Thing(shared), {"rows": shared, "count": 7}
    with StandIn() as card:
        moved, rows, method, partial = on_device(
            (thing, log, thing.first, functools.partial(max, key=thing)), card.device
        )
        assert moved.owner is moved
        assert moved.shared is moved.pair.first is rows["rows"] is method()
        assert partial.keywords["key"] is moved
        assert {t.device for t in (moved.shared, moved.pair.second)} == {card.device}
        back = on_device(moved, CPU)
    assert (moved.size, rows["count"]) == (3, 7)
    assert thing.shared is shared
    assert log["rows"] is shared
    assert torch.equal(back.pair.second, torch.full((2,), 2.0))


def test_networks_are_copied_with_what_they_share() -> None:
    net = Net()
    tied = nn.ModuleList([nn.Sequential(net), net])
    with StandIn() as card:
        moved = on_device({"all": tied, "one": net}, card.device)
        there = moved["all"]
        assert there[1].weight is there[0][0].weight is moved["one"].weight
        assert {t.device for t in (*there.parameters(), *there.buffers())} == {card.device}
        assert not any(parameter.requires_grad for parameter in there.parameters())
        values = on_device(there, CPU).state_dict()
    assert net.weight.device == CPU
    assert all(torch.equal(values[name], value) for name, value in tied.state_dict().items())


def test_streams_keep_their_names_on_every_device() -> None:
    with StandIn() as card:
        streams = RngStreams(3, card.device)
        assert streams.at("batch", 5).device == card.device
        assert streams.child("policy").device == card.device
        assert streams.host == RngStreams(3)
        assert streams.at("batch", 5).initial_seed() == RngStreams(3).at("batch", 5).initial_seed()
