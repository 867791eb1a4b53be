"""What a bundle promises: channels, units, limits, checks, how it was tested, the digests of its files."""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from mbrl.deploy.guard import AlarmRate

CONTRACT_FILE: Final = "contract.json"
POLICY_ONNX: Final = "policy.onnx"
GUARD_ONNX: Final = "guard.onnx"
FALLBACK_ONNX: Final = "fallback.onnx"
RUNTIME_FILE: Final = "runtime.py"
LOG_SCHEMA_FILE: Final = "log-schema.yaml"
CARD_FILE: Final = "MODEL_CARD.md"

Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Text = Annotated[str, Field(max_length=2000)]


class Part(BaseModel):
    """A frozen part of a contract; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ObservationChannel(Part):
    """One number that the robot gives.

    Attributes:
        name: of the channel.
        unit: of it, or None where the log says none.
        made_of: how it comes from the columns of the raw log, or None.
        logged_low: smallest value in the log.
        logged_high: largest one.
    """

    name: Text
    unit: Text | None = None
    made_of: Text | None = None
    logged_low: Finite
    logged_high: Finite


class ObservationPart(Part):
    """What the robot gives.

    Attributes:
        history: frames that the policy reads; the runtime keeps them.
        channels: of one frame, in order.
    """

    history: Annotated[int, Field(ge=1)]
    channels: Annotated[tuple[ObservationChannel, ...], Field(min_length=1)]


class ActionChannel(Part):
    """One number that the robot receives.

    Attributes:
        name: of the channel.
        unit: of it, or None.
        kind: whether the log holds what was commanded or what was measured; None where it does not say.
        low: limit, environment units.
        high: likewise.
        max_change: largest change from one step to the next, or None.
        logged_change: largest change in the log.
    """

    name: Text
    unit: Text | None = None
    kind: Text | None = None
    low: Finite
    high: Finite
    max_change: Positive | None = None
    logged_change: Finite

    @model_validator(mode="after")
    def _is_a_range(self) -> "ActionChannel":
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must lie below high {self.high:g}")
        return self


class ActionPart(Part):
    """What the robot receives.

    Attributes:
        channels: in order.
        choices: names, where an action is one of finitely many choices; the channels are then the entries of
            its one-hot vector. The runtime takes the mask of those that are allowed, in this order:
            `act(observation, mask=[1, 0, 1])`, all where none is given. None for continuous actions.
        ids: what the runtime gives for each choice and the machine takes: an integer, or several that make a
            choice together. None likewise.
    """

    channels: Annotated[tuple[ActionChannel, ...], Field(min_length=1)]
    choices: tuple[Text, ...] | None = None
    ids: tuple[int | tuple[int, ...], ...] | None = None

    @model_validator(mode="after")
    def _choices_are_channels(self) -> "ActionPart":
        if self.choices is None and self.ids is None:
            return self
        if not len(self.choices or ()) == len(set(self.ids or ())) == len(self.channels):
            raise ValueError(f"{len(self.channels)} channels have as many choices, and as many different ids")
        return self


class RuntimePart(Part):
    """What the runtime does when something is wrong; may be edited by hand.

    Attributes:
        fallback: who acts then: `policy` (of the bundle) or `hold`.
        rest: the action that ends a hold, environment units.
        coast_steps: steps in a row in which the policy acts on forecasts where frames are lost, or do not
            follow from the ones before; 0 for none.
        hold_steps: steps that the last action of the policy is held.
        stale_after: seconds after which an observation with a stamp is too old; None does not ask.
        frozen_after: repeats of the very same observation after which a sensor counts as frozen; None does
            not ask.
        patience: steps far from the log, in a row, that hand over to the fallback; None only tells of them.
        release: steps without that hand back.
    """

    fallback: Literal["policy", "hold"] = "hold"
    rest: tuple[Finite, ...]
    coast_steps: Count = 5
    hold_steps: Count = 5
    stale_after: Positive | None = None
    frozen_after: Annotated[int, Field(ge=1)] | None = None
    patience: Annotated[int, Field(ge=1)] | None = None
    release: Annotated[int, Field(ge=1)] = 1


class GuardPart(Part):
    """The guard, see `mbrl.deploy.guard`.

    Attributes:
        threshold: of novelty and surprise.
        rate: of false alarms on logged steps.
        policy_alarms: share of the same rows that raise an alarm with the action of the policy in place of
            the logged one.
        usual_surprise: median of the surprise of these rows: a log whose median is another comes from a
            machine that answers otherwise.
        prototypes: rows that stand for the log.
        features: of the forecast.
    """

    threshold: Positive
    rate: AlarmRate
    policy_alarms: Annotated[float, Field(ge=0, le=1)]
    usual_surprise: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    prototypes: Count
    features: Count


class ParityPart(Part):
    """How well the graphs repeat what was trained, on rows of the log.

    Attributes:
        rows: that were asked.
        held_out: whether no policy of `policy_data: train` has seen them.
        tolerance: largest difference that is accepted, actions scaled to [-1, 1].
        policy: largest difference of an action to torch's.
        fallback: likewise; None without one.
        guard: largest difference of a part of the guard to its computation in float64, in units of alarm;
            None without one.
    """

    rows: Count
    held_out: bool
    tolerance: Positive
    policy: Finite
    fallback: Finite | None = None
    guard: Finite | None = None


class VerdictPart(Part):
    """What `mbrl ope` says of the policy.

    Attributes:
        verdict: go, go_with_guard, no_go or cannot_tell.
        reasons: in words.
        baseline: what it was compared with.
        source: the report.
    """

    verdict: Literal["go", "go_with_guard", "no_go", "cannot_tell"]
    reasons: tuple[str, ...]
    baseline: Text
    source: Text


class LogPart(Part):
    """The log that the policy learned from.

    Attributes:
        name: of it.
        content_hash: of what training read.
        episodes: in it.
        transitions: in it.
        source: where it comes from, for people.
    """

    name: Text
    content_hash: Text
    episodes: Count
    transitions: Count
    source: Text = ""


class Contract(Part):
    """What a bundle promises.

    Attributes:
        format: of this file.
        policy: what is known of the training: algorithm, seed, run, version.
        stochastic: whether the policy draws its actions.
        observation: what the robot gives.
        action: what it receives.
        rate: steps per second of the log, or None where it does not say.
        runtime: what happens when something is wrong.
        guard: None without one.
        parity: how well the graphs repeat the training.
        log: that it learned from.
        verdict: of `mbrl ope`, or None where nobody asked.
        versions: of the packages that wrote the bundle.
        files: SHA-256 of its files, by name.
    """

    format: Literal[1] = 1
    policy: dict[str, Any]
    stochastic: bool
    observation: ObservationPart
    action: ActionPart
    rate: Positive | None
    runtime: RuntimePart
    guard: GuardPart | None
    parity: ParityPart
    log: LogPart
    verdict: VerdictPart | None
    versions: dict[str, str]
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]

    @model_validator(mode="after")
    def _parts_agree(self) -> "Contract":
        if len(self.runtime.rest) != len(self.action.channels):
            raise ValueError(
                f"{len(self.runtime.rest)} numbers of rest for {len(self.action.channels)} actions"
            )
        if POLICY_ONNX not in self.files or (self.guard is not None) != (GUARD_ONNX in self.files):
            raise ValueError("files and guard do not go together")
        if self.runtime.fallback == "policy" and FALLBACK_ONNX not in self.files:
            raise ValueError("there is no fallback policy among the files")
        return self

    @property
    def frame_names(self) -> tuple[str, ...]:
        """Channels of one frame."""
        return tuple(channel.name for channel in self.observation.channels)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Channels of the action."""
        return tuple(channel.name for channel in self.action.channels)
