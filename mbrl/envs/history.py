"""A policy that was trained on past frames and actions, acting where one frame comes at a time."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from mbrl.core.history import History
from mbrl.core.protocols import EpisodicPolicy, Policy


class HistoryPolicy:
    """Remembers frames and actions of every episode for a policy that reads them; an `EpisodicPolicy`.

    Before an episode its first frame and the resting action stand for what was not seen, as in the dataset
    that the policy learned from (`mbrl.data.stacking.history.with_history`).

    Args:
        policy: acts on whole observations.
        history: what these hold.
        rest: `[act_dim]` the resting action, environment units.
    """

    def __init__(self, policy: Policy, history: History, rest: Float[Tensor, "act_dim"]) -> None:
        self.policy, self.history, self.rest = policy, history, rest
        self._older: dict[int, Tensor] = {}  # by episode: the next observation but for its newest frame

    @property
    def act_dim(self) -> int:
        """Size of an action, and of the noise vector."""
        return self.policy.act_dim

    def act(
        self, obs: Float[Tensor, "b frame_dim"], noise: Float[Tensor, "b act_dim"] | None = None
    ) -> Float[Tensor, "b act_dim"]:
        """Acts as at the start of an episode; remembers nothing."""
        return self.policy.act(torch.cat((obs, self._before(obs)), 1), noise)

    def act_in_episodes(
        self,
        obs: Float[Tensor, "b frame_dim"],
        noise: Float[Tensor, "b act_dim"] | None = None,
        *,
        episodes: Sequence[int],
    ) -> Float[Tensor, "b act_dim"]:
        """Acts in episodes that run side by side, and remembers what each saw and did."""
        before = self._before(obs)
        older = [self._older.get(episode, before[row]) for row, episode in enumerate(episodes)]
        whole = torch.cat((obs, torch.stack(older)), 1)
        if isinstance(self.policy, EpisodicPolicy):
            actions = self.policy.act_in_episodes(whole, noise, episodes=episodes)
        else:
            actions = self.policy.act(whole, noise)
        self._older.update(zip(episodes, self.history.moved(whole, actions).clone(), strict=True))
        return actions

    def reset(self, episodes: Sequence[int] | None = None) -> None:
        """Forgets episodes that are over; None forgets all."""
        if isinstance(self.policy, EpisodicPolicy):
            self.policy.reset(episodes)
        for episode in list(self._older) if episodes is None else episodes:
            self._older.pop(episode, None)

    def _before(self, frames: Float[Tensor, "b frame_dim"]) -> Float[Tensor, "b rest"]:
        """What observations hold besides their newest frame where an episode starts with it."""
        rest = self.rest.to(frames).repeat(len(frames), self.history.actions)
        return torch.cat((frames.repeat(1, self.history.frames - 1), rest), 1)
