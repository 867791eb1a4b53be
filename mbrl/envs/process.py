"""Small control tasks of the process industry: a stirred reactor, four tanks, a pipeline with a delay.

Each holds outputs at set points that are drawn anew in every episode. An observation is the state, the set
points, and the integrals of what the outputs missed them by, so that a proportional-integral controller is a
linear function of it. Rewards lie in [0, 1]: 1 with every output at its set point.

Gymnasium knows them as `mbrl/Reactor-v0`, `mbrl/FourTank-v0`, `mbrl/Pipeline-v0` (`register`). NumPy alone.

Sources: Seborg, Edgar, Mellichamp & Doyle, Process Dynamics and Control, example 2.5 and appendix, for the
reactor (its unstable steady state at 350 K); Johansson 2000, The quadruple-tank process, IEEE Trans. Control
Syst. Technol. 8, for the tanks (minimum phase, table 1); the pipeline is in the manner of NeoRL-2 (Gao et al.
2025, arXiv:2503.19267).
"""

import abc
from typing import Any, ClassVar, Final

import gymnasium
import numpy as np
from gymnasium.spaces import Box
from numpy.typing import NDArray

Array = NDArray[np.float64]

_SUBSTEPS: Final = 5  # Runge-Kutta steps between two decisions
_INTEGRAL_LIMIT: Final = 5.0  # of the integrals: a controller must not wind up for ever


class ProcessEnv(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]], abc.ABC):
    """Holds outputs of a process at set points.

    Attributes:
        low: least values of the commands, physical units.
        high: largest values.
        time_step: between two decisions, units of the process.
        width: error of an output that the reward falls to 1/e at, physical units.
        noise: deviation of the disturbance of each state in a step, physical units.
        targets: lower and upper end of each output's set points.

    Args:
        render_mode: none of them can be drawn.
    """

    low: ClassVar[tuple[float, ...]]
    high: ClassVar[tuple[float, ...]]
    time_step: ClassVar[float]
    width: ClassVar[tuple[float, ...]]
    noise: ClassVar[tuple[float, ...]]
    targets: ClassVar[tuple[tuple[float, float], ...]]

    def __init__(self, render_mode: None = None) -> None:
        self.render_mode = render_mode
        size = len(self.noise) + 2 * len(self.width)
        self.observation_space = Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = Box(
            np.array(self.low, np.float32), np.array(self.high, np.float32), dtype=np.float32
        )
        self._state: Array = np.zeros(len(self.noise))
        self._target: Array = np.zeros(len(self.width))
        self._integral: Array = np.zeros(len(self.width))

    @abc.abstractmethod
    def start(self) -> Array:
        """State that an episode starts near, physical units."""

    @abc.abstractmethod
    def outputs(self, state: Array) -> Array:
        """What is to be at the set points."""

    @abc.abstractmethod
    def derivative(self, state: Array, command: Array) -> Array:
        """Change of the state per unit of time."""

    def has_failed(self, state: Array) -> bool:
        """Whether the plant has shut itself down."""
        del state
        return False

    def advance(self, state: Array, command: Array) -> Array:
        """The state after a time step without disturbances (Runge-Kutta of order 4)."""
        step = self.time_step / _SUBSTEPS
        for _ in range(_SUBSTEPS):
            k1 = self.derivative(state, command)
            k2 = self.derivative(state + 0.5 * step * k1, command)
            k3 = self.derivative(state + 0.5 * step * k2, command)
            k4 = self.derivative(state + step * k3, command)
            state = state + step / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
        return state

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """An episode near the usual state, with set points drawn evenly."""
        super().reset(seed=seed, options=options)
        spread = 5.0 * np.array(self.noise)
        self._state = self.start() + spread * self.np_random.standard_normal(len(spread))
        low, high = np.array(self.targets, np.float64).T
        self._target = np.asarray(self.np_random.uniform(low, high), np.float64)
        self._integral = np.zeros(len(self.width))
        return self._observe(), {}

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Holds the command for a time step; the reward is of the state that this leads to."""
        command = np.clip(np.asarray(action, np.float64).reshape(-1), self.low, self.high)
        disturbance = np.array(self.noise) * self.np_random.standard_normal(len(self.noise))
        self._state = self.advance(self._state, command) + disturbance
        error: Array = (self._target - self.outputs(self._state)) / np.array(self.width)
        self._integral = (self._integral + 0.1 * error).clip(-_INTEGRAL_LIMIT, _INTEGRAL_LIMIT)
        failed = self.has_failed(self._state)
        reward = 0.0 if failed else float(np.exp(-np.square(error).mean()))
        return self._observe(), reward, failed, False, {}

    def _observe(self) -> NDArray[np.float32]:
        return np.concatenate((self._visible(), self._target, self._integral)).astype(np.float32)

    def _visible(self) -> Array:
        return self._state


class Reactor(ProcessEnv):
    """An exothermic stirred-tank reactor: its coolant holds the concentration, where it would run away alone.

    State: concentration (mol/L), temperature (K). Command: coolant temperature (K). Above 400 K a trip ends
    the episode. Time in minutes.
    """

    low, high = (280.0,), (320.0,)
    time_step = 0.05
    width = (0.05,)
    noise = (0.001, 0.1)
    targets = ((0.4, 0.6),)

    FLOW: ClassVar = 1.0  # q / V, per minute
    FEED: ClassVar = 1.0  # mol/L
    FEED_TEMPERATURE: ClassVar = 350.0  # K
    RATE: ClassVar = 7.2e10  # k0, per minute
    ACTIVATION: ClassVar = 8750.0  # E / R, K
    HEAT: ClassVar = 5e4 / (1000.0 * 0.239)  # -dH / (rho C_p), K L/mol
    COOLING: ClassVar = 5e4 / (100.0 * 1000.0 * 0.239)  # U A / (V rho C_p), per minute
    TRIP: ClassVar = 400.0  # K

    def start(self) -> Array:
        """The unstable steady state: 0.5 mol/L, 350 K, with a coolant of 300 K."""
        return np.array([0.5, 350.0])

    def outputs(self, state: Array) -> Array:
        """The concentration."""
        return state[:1]

    def derivative(self, state: Array, command: Array) -> Array:
        """Balances of mass and energy."""
        concentration, temperature = state
        # Beyond 1,000 K nothing is left to be said, but an exponent that overflows.
        reaction = self.RATE * np.exp(-self.ACTIVATION / np.clip(temperature, 1.0, 1000.0)) * concentration
        return np.array(
            [
                self.FLOW * (self.FEED - concentration) - reaction,
                self.FLOW * (self.FEED_TEMPERATURE - temperature)
                + self.HEAT * reaction
                + self.COOLING * (command[0] - temperature),
            ]
        )

    def has_failed(self, state: Array) -> bool:
        """The temperature trip."""
        return bool(state[1] > self.TRIP)


class FourTank(ProcessEnv):
    """Four coupled tanks: two pumps hold the levels of the lower two, each feeds one directly and one above.

    State: levels (cm). Commands: pump voltages (V). Time in seconds.
    """

    low, high = (0.0, 0.0), (6.0, 6.0)
    time_step = 5.0
    width = (1.0, 1.0)
    noise = (0.02, 0.02, 0.02, 0.02)
    targets = ((9.0, 15.0), (9.0, 15.0))

    AREA: ClassVar = np.array([28.0, 32.0, 28.0, 32.0])  # cm^2
    OUTLET: ClassVar = np.array([0.071, 0.057, 0.071, 0.057])  # cm^2
    PUMP: ClassVar = np.array([3.33, 3.35])  # cm^3 / (V s)
    SPLIT: ClassVar = np.array([0.70, 0.60])  # share of a pump's flow that goes to the lower tank
    GRAVITY: ClassVar = 981.0  # cm / s^2

    def start(self) -> Array:
        """The operating point of the paper, with 3 V at both pumps."""
        return np.array([12.4, 12.7, 1.8, 1.4])

    def outputs(self, state: Array) -> Array:
        """The lower levels."""
        return state[:2]

    def derivative(self, state: Array, command: Array) -> Array:
        """Torricelli's outflows and what the pumps bring (equation 1 of the paper)."""
        out = self.OUTLET * np.sqrt(2.0 * self.GRAVITY * np.maximum(state, 0.0))
        flow = self.PUMP * command
        direct, above = self.SPLIT * flow, (1.0 - self.SPLIT) * flow
        inflow = np.array([out[2] + direct[0], out[3] + direct[1], above[1], above[0]])
        return (inflow - out) / self.AREA

    def advance(self, state: Array, command: Array) -> Array:
        """Tanks hold between nothing and 20 cm."""
        return np.clip(super().advance(state, command), 0.0, 20.0)


class Pipeline(ProcessEnv):
    """A heater at the inlet of a long pipe holds the temperature at its outlet, ten steps later.

    What is in the pipe is not observed: a policy that remembers its last commands knows more. State: outlet
    temperature (deg C). Command: inlet temperature (deg C). Time in minutes.
    """

    low, high = (20.0,), (80.0,)
    time_step = 1.0
    width = (2.0,)
    noise = (0.1,)
    targets = ((40.0, 60.0),)

    DELAY: ClassVar = 10  # steps
    MIXING: ClassVar = 0.3  # share of the outlet's vessel that is replaced in a step
    LOSS: ClassVar = 0.9  # of the warmth above the surroundings that arrives
    SURROUNDINGS: ClassVar = 15.0  # deg C

    def __init__(self, render_mode: None = None) -> None:
        super().__init__(render_mode)
        self._pipe = np.zeros(self.DELAY)

    def start(self) -> Array:
        """A pipe filled with water of 50 deg C, and the outlet that this leads to."""
        self._pipe = np.full(self.DELAY, 50.0)
        return np.array([self._arriving()])

    def outputs(self, state: Array) -> Array:
        """The outlet temperature."""
        return state

    def derivative(self, state: Array, command: Array) -> Array:
        """Of the vessel at the outlet."""
        del command
        return self.MIXING * (self._arriving() - state)

    def advance(self, state: Array, command: Array) -> Array:
        """Mixes what arrives, and moves the pipe's content on."""
        state = state + self.derivative(state, command)
        self._pipe = np.append(self._pipe[1:], command[0])
        return state

    def _arriving(self) -> float:
        return float(self.SURROUNDINGS + self.LOSS * (self._pipe[0] - self.SURROUNDINGS))


def register() -> None:
    """Makes the tasks known to Gymnasium; once is enough, and more does no harm."""
    for env in (Reactor, FourTank, Pipeline):
        name = f"mbrl/{env.__name__}-v0"
        if name not in gymnasium.registry:
            gymnasium.register(name, f"{__name__}:{env.__name__}")
