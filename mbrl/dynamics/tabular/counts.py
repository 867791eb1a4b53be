"""Counts of a log as a table, and members drawn from what they leave open.

For a state s and an action a with counts n over successors, the posterior is

    Dirichlet(n(s, a, .) + prior * p0(. | s)),   p0(. | s) ~ Dirichlet(sum_a n(s, a, .))

so an action that was never tried in a state is thought to do what the others did there, and members dispute
it. A state that no training step leaves borrows p0 from all states together.

How many steps the prior is worth is chosen by the marginal likelihood of the counts (empirical Bayes). A
small prior draws members that send an untried action to one successor alone, and chains of such members run
in circles; a large one says that all actions do the same. The log tells which is nearer to the truth.
"""

from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from mbrl.core.errors import DataError
from mbrl.core.rng import RngStreams
from mbrl.data.choices.states import StateIndex, are_one_hot
from mbrl.data.dataset import Dataset, Transitions
from mbrl.data.transitions import state_masks
from mbrl.dynamics.arrays import fit_normaliser, fit_target_normaliser, step_inputs
from mbrl.dynamics.tabular.model import Table, TabularDynamics

MAX_STATES: Final = 5_000
"""Most distinct observations of a table; beyond, hardly any is met twice."""

MAX_ENTRIES: Final = 100_000_000
"""Most numbers of one array of a table: 400 MB."""

PRIORS: Final = tuple(2.0**k for k in range(-2, 11))
"""Worths of the prior, in steps, among which the log chooses."""

_NETWORKS: Final = (
    "Fit networks: dynamics.kind=categorical where observations repeat, dynamics.kind=gaussian where they "
    "are continuous."
)

Array = NDArray[np.float64]


def fit_table(
    dataset: Dataset, train: Dataset, *, members: int, prior: float | None, rng: RngStreams
) -> TabularDynamics:
    """Counts the steps of `train`.

    Args:
        dataset: the whole log; its distinct observations are the states. Which states there are is no
            parameter, so that the held-out ones belong to them.
        train: the episodes that are counted.
        members: draws of the posterior.
        prior: steps that the prior is worth, for each state and action, > 0; None for the likeliest of
            `PRIORS`.
        rng: of the draws.

    Raises:
        DataError: actions are no choices, or there are too many states or pairs for a table.
    """
    if not are_one_hot(train):
        raise DataError(
            "a table counts choices, and these actions are continuous.",
            field="actions",
            remedy="Fit an ensemble of networks: dynamics.kind=gaussian.",
        )
    codes, (state, following) = _states(dataset, train)
    rows = train.transitions()
    choice = rows.action.argmax(1)
    never_left = _never_left(codes, dataset, state)
    pairs = _pairs(state, following, never_left, len(codes))
    start = np.searchsorted(pairs[0], np.arange(len(codes) + 1))
    actions, count = rows.action.shape[1], len(pairs[0])
    if max(members * actions * count, members * actions * codes.size) > MAX_ENTRIES:
        raise DataError(
            f"{len(codes):,} states, {actions} actions and {members} members are too many for a table",
            field="observations",
            remedy=_NETWORKS,
        )
    counts, earned, ends, variance = _sums(rows, (state, following, choice), pairs, len(codes))
    base = _base(counts.sum(0), pairs, start, never_left)
    prior = likeliest_prior(counts, base, start) if prior is None else prior
    found = (counts, earned, ends, variance)
    draws = [_member(found, base, prior, start, rng.child(f"member{m}")) for m in range(members)]
    chance, reward, ended = (np.stack(column) for column in zip(*draws, strict=True))
    table = Table(
        codes=torch.from_numpy(codes),
        start=torch.from_numpy(start),
        successor=torch.from_numpy(pairs[1]),
        count=_floats(counts),
        reward=_floats(reward),
        ends=_floats(ended),
        chance=_floats(chance),
        reward_variance=_floats(variance),
        allowed=torch.from_numpy(_allowed(dataset, codes)),
    )
    known = rows.successors_known()
    return TabularDynamics(
        table,
        inputs=fit_normaliser(step_inputs(rows)),
        targets=fit_target_normaliser(known if len(known) else rows),
    )


def _states(
    dataset: Dataset, train: Dataset
) -> tuple[NDArray[np.float32], tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """The states `[S, obs_dim]`, and those before and after each step of `train`."""
    index = StateIndex.of(dataset)
    if len(index) > MAX_STATES:
        raise DataError(
            f"{len(index):,} distinct observations, where a table takes {MAX_STATES:,} at most",
            field="observations",
            remedy=_NETWORKS,
        )
    rows = train.transitions()
    return index.codes, (index.find(rows.observation), index.find(rows.next_observation))


def _allowed(dataset: Dataset, codes: NDArray[np.float32]) -> NDArray[np.bool_]:
    """`[S, A]`, what any mask of the log allows in each state; all choices where no mask was ever given.

    Like the states themselves, masks are facts of the task and no parameters: those of all episodes count.
    """
    masks = state_masks(dataset.episodes, dataset.spec.act_dim)
    found = np.zeros((len(codes), dataset.spec.act_dim), dtype=np.bool_)
    if masks is not None:
        seen = np.concatenate([episode.observations for episode in dataset.episodes])
        state = StateIndex(codes).find(seen)
        np.logical_or.at(found, state[state >= 0], np.concatenate(masks)[state >= 0])
    return found | ~found.any(1, keepdims=True)


def _never_left(codes: NDArray[np.float32], dataset: Dataset, state: NDArray[np.int64]) -> NDArray[np.int64]:
    """States that a policy may be asked in, and that no counted step leaves."""
    every = dataset.transitions()
    is_asked = np.concatenate([every.observation, every.next_observation[~every.terminated]])
    asked = {row.tobytes() for row in np.ascontiguousarray(np.unique(is_asked, axis=0) + 0.0)}
    left = set(state.tolist())
    found = [
        k for k, code in enumerate(np.ascontiguousarray(codes)) if code.tobytes() in asked and k not in left
    ]
    return np.array(found, dtype=np.int64)


def _pairs(
    state: NDArray[np.int64], following: NDArray[np.int64], never_left: NDArray[np.int64], size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """`[K]` states and successors, in ascending order; a state that nothing leaves may lead anywhere."""
    anywhere = np.unique(following)
    borrowed = (np.repeat(never_left, len(anywhere)) * size + np.tile(anywhere, len(never_left))).astype(
        np.int64
    )
    keys = np.unique(np.concatenate([state * size + following, borrowed]))
    return keys // size, keys % size


def _sums(
    rows: Transitions,
    steps: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    size: int,
) -> tuple[Array, Array, Array, Array]:
    """Counts, mean rewards and shares of ends `[A, K]`, and the variance `[K]` of rewards."""
    state, following, choice = steps
    column = np.searchsorted(pairs[0] * size + pairs[1], state * size + following)
    shape = (rows.action.shape[1], len(pairs[0]))
    count, gain, ended = np.zeros((3, *shape))
    reward = rows.reward.astype(np.float64)
    np.add.at(count, (choice, column), 1.0)
    np.add.at(gain, (choice, column), reward)
    np.add.at(ended, (choice, column), rows.terminated.astype(np.float64))
    # Where an action was not seen to lead there: what the others brought on the same way, else anywhere.
    total = count.sum(0)
    into = np.bincount(pairs[1], total, size), np.bincount(pairs[1], gain.sum(0), size)
    ends_into = np.bincount(pairs[1], ended.sum(0), size)
    with np.errstate(invalid="ignore", divide="ignore"):
        way = np.where(total > 0, gain.sum(0) / total, (into[1] / into[0])[pairs[1]])
        way_ends = np.where(total > 0, ended.sum(0) / total, (ends_into / into[0])[pairs[1]])
        mean = np.where(count > 0, gain / count, np.nan_to_num(way))
        share = np.where(count > 0, ended / count, np.nan_to_num(way_ends))
    squares = np.square(reward - mean[choice, column])
    # Few rewards of a way say little of their variance: that of all steps counts as one more of them.
    variance = (np.bincount(column, squares, len(total)) + squares.mean()) / (total + 1.0)
    return count, mean, share, variance


def _base(
    total: Array,
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]],
    start: NDArray[np.int64],
    never_left: NDArray[np.int64],
) -> Array:
    """`[K]`, p0; sums to 1 over the successors of a state."""
    weight = total.copy()
    borrowed = np.isin(pairs[0], never_left)
    weight[borrowed] = np.bincount(pairs[1], total, int(pairs[1].max()) + 1)[pairs[1][borrowed]]
    return weight / np.repeat(_segment_sums(weight, start), np.diff(start))


def _member(
    found: tuple[Array, Array, Array, Array],
    base: Array,
    prior: float,
    start: NDArray[np.int64],
    rng: RngStreams,
) -> tuple[Array, Array, Array]:
    """Chances, mean rewards and ends `[A, K]` of one draw of the posterior.

    What all actions share is not known either: p0 is a draw around the counts of the state (one step's worth
    of the borrowed p0 where there are none), and so are the mean reward of a way, around its `variance / n`,
    and whether it ends the task: surely, or surely not, where all steps agree.
    """
    counts, earned, ends, variance = found
    total: Array = counts.sum(0)
    is_known = np.repeat(_segment_sums(total, start) > 0, np.diff(start))
    shared = _posterior_draw(np.where(is_known, total, base)[None], start, rng.integer("shared"))[0]
    chance = _posterior_draw(counts + prior * shared, start, rng.integer("chance"))
    # A mean of n rewards is known to variance / n; the prior's steps count as rewards of the same way.
    way = np.sqrt(variance / (total + 1.0)) * _normal(total.shape, rng.integer("way"))
    own = np.sqrt(variance / (counts + np.maximum(prior * base, 1.0)))
    reward = earned + way + own * _normal(counts.shape, rng.integer("reward"))
    # Successes of the whole way first, then those of the action around what was drawn of the way.
    over: Array = (counts * ends).sum(0)
    first: Array = ends[0]
    share: Array = np.where(total > 0, over / np.maximum(total, 1.0), first)
    known: Array = np.where(total > 0, total, 1.0)
    of_way = _beta(known * share, known * (1.0 - share), share, rng.integer("way ends"))
    worth, own_ends = prior * base, counts * ends
    return (
        chance,
        reward,
        _beta(
            own_ends + worth * of_way, counts - own_ends + worth * (1.0 - of_way), ends, rng.integer("ends")
        ),
    )


def _beta(yes: Array, no: Array, otherwise: Array, seed: int) -> Array:
    """Draws of Beta(yes, no), 0 or 1 where one of them is 0; `otherwise` where both are, or vanish."""
    rng = np.random.Generator(np.random.Philox(seed))
    first, second = rng.standard_gamma(yes), rng.standard_gamma(no)
    total = first + second
    return np.where(total > 0, first / np.where(total > 0, total, 1.0), otherwise)


def likeliest_prior(counts: Array, base: Array, start: NDArray[np.int64]) -> float:
    """The worth of `PRIORS` under which the counts are likeliest, given p0.

    `log p(n | c) = sum_{s,a} [log G(c) - log G(c + n) + sum_s' (log G(c p0 + n_s') - log G(c p0))]`, G being
    the gamma function, over the pairs of states and actions that were tried.

    Args:
        counts: `[A, K]`.
        base: `[K]`, p0.
        start: `[S + 1]`, where the successors of each state begin.
    """
    action, pair = counts.nonzero()
    seen = torch.from_numpy(counts[action, pair])
    total = torch.from_numpy(_segment_sums(counts, start))
    total = total[total > 0]

    def log_likelihood(worth: float) -> float:
        share = worth * torch.from_numpy(base[pair])
        whole = torch.tensor(worth, dtype=torch.float64)
        of_totals = (torch.lgamma(whole) - torch.lgamma(whole + total)).sum()
        return float(of_totals + (torch.lgamma(share + seen) - torch.lgamma(share)).sum())

    return max(PRIORS, key=log_likelihood)


def _segment_sums(values: Array, start: NDArray[np.int64]) -> Array:
    """Sums over the last axis between each two of `start`; 0 where nothing lies between."""
    total = np.concatenate([np.zeros((*values.shape[:-1], 1)), values.cumsum(-1)], -1)
    return total[..., start[1:]] - total[..., start[:-1]]


def _posterior_draw(concentration: Array, start: NDArray[np.int64], seed: int) -> Array:
    """`[A, K]`, a draw of each Dirichlet, in logarithms: small concentrations would underflow.

    `log g = log Gamma(c + 1) + log(u) / c` is a gamma variate of shape c, and Dirichlet variates are gamma
    variates over their sum.
    """
    rng = np.random.Generator(np.random.Philox(seed))
    shape = np.maximum(concentration, 1e-12)
    log_gamma = np.log(rng.standard_gamma(shape + 1.0)) + np.log1p(-rng.random(shape.shape)) / shape
    sizes = np.diff(start)
    firsts = start[:-1][sizes > 0]
    largest = np.maximum.reduceat(log_gamma, firsts, axis=1)
    draw = np.exp(log_gamma - np.repeat(largest, sizes[sizes > 0], axis=1))
    return draw / np.repeat(np.add.reduceat(draw, firsts, axis=1), sizes[sizes > 0], axis=1)


def _normal(shape: tuple[int, ...], seed: int) -> Array:
    return np.random.Generator(np.random.Philox(seed)).standard_normal(shape)


def _floats(values: Array) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.float32))
