"""Runs an exported policy: NumPy and onnxruntime, in this one file that travels in the bundle."""

import contextlib
import csv
import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import onnxruntime


class Decision(NamedTuple):
    """What a step did, and why it was not the policy that acted."""

    action: np.ndarray  # that was sent, [act_dim]
    source: str  # policy, coast (the policy on a forecast), fallback, hold or rest
    reasons: tuple[str, ...]  # of not_finite, stale, history, policy, surprise, novelty, fallback
    proposed: np.ndarray  # by the policy within its limits, [act_dim]; NaN where it was not asked
    novelty: float  # of the state and the proposed action, 1 is rare in the log; NaN where unknown
    surprise: float  # at the step that led here, likewise
    alarm: bool  # one of them is beyond the threshold


class Controller(contextlib.ExitStack):
    """A policy with its limits, checks, history, guard and log.

    Args:
        bundle: folder that `mbrl export` wrote.
        fallback: who acts in place of the policy: "policy" (of the bundle; it holds without a usable frame),
            "hold" (its last action, after `hold_steps` the `rest`), or a function of the frame [contract].
        guard: whether alarms of the guard take the policy's place; they are logged in any case.
        log: csv file to write, for `mbrl import <bundle>/log-schema.yaml`; it must not exist.
        clock: seconds, of the stamps.
    """

    def __init__(
        self, bundle: str | Path, *, fallback: str | Callable[[np.ndarray], Any] | None = None, seed: int = 0,
        guard: bool = True, log: str | Path | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        super().__init__()  # `close`, or the end of a `with`, closes the log
        self.folder = Path(bundle)
        self.contract: dict[str, Any] = json.loads((self.folder / "contract.json").read_text("utf-8"))
        if self.contract.get("format") != 1:
            raise ValueError(f"{self.folder}: this file reads contracts of format 1 alone")
        self._say, acts = self.contract["runtime"], self.contract["action"]["channels"]
        self._choices: Any = self.contract["action"].get("ids")  # an action is then one of these
        names = [channel["name"] for channel in self.contract["observation"]["channels"]]
        self._history, self._size = int(self.contract["observation"]["history"]), len(names)
        self._low, self._high = (np.array([a[k] for a in acts], np.float32) for k in ("low", "high"))
        self._max_change = np.array([a["max_change"] or math.inf for a in acts], np.float32)
        self._rest, self._stale = (
            np.array(self._say["rest"], np.float32),
            self._say["stale_after"] or math.inf,
        )
        self._policy, self._spare, self._guard = map(self._open, ("policy", "fallback", "guard"))
        self._threshold = 0.0 if self._guard is None else float(self.contract["guard"]["threshold"])
        self._fallback: Any = self._say["fallback"] if fallback is None else fallback
        if not callable(self._fallback) and self._fallback not in ("hold", "policy" if self._spare else ""):
            raise ValueError(f"{self.folder} has no fallback {self._fallback!r}: give 'hold' or a function")
        self._intervenes, self._clock, self._rng = guard, clock, np.random.default_rng(seed)
        self._file = None if log is None else self.enter_context(Path(log).open("x", 1, newline=""))  # noqa: SIM115
        if self._file is not None:
            names += [f"{kind}{a['name']}" for kind in ("", "proposed_") for a in acts]
            names += ["novelty", "surprise", "alarm", "source", "reasons", "milliseconds"]
            csv.writer(self._file).writerow(["time", "episode", *names])
        self.episode, self._begun, self._eye = -1, clock(), np.eye(len(acts), dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Begins an episode: forgets history, previous step, held action and alarms."""
        self.episode, self._stamp = self.episode + 1, -math.inf
        self.last: Decision | None = None
        self._frames: list[np.ndarray] = []
        self._previous: tuple[np.ndarray, np.ndarray] | None = None
        self._repeats, self._alarms, self._quiet, self._held, self._coasted = 0, 0, 0, 0, 0
        self._safe, self._seen, self._guarding = self._rest, np.full(self._size, np.nan, np.float32), False

    def act(self, observation: Any, stamp: float | None = None, mask: Any = None) -> Any:
        """The action `[act_dim]`, or the id of a choice, for the latest frame `[frame_dim]`; see `last`.

        A mask `[choices]` tells what is allowed (None: all), a stamp (seconds on the clock) how old it is.
        """
        now, frame = self._clock(), np.array(observation, np.float32)
        self._mask = np.ones_like(self._low) if mask is None else np.array(mask, np.float32)
        if mask is not None and not (self._choices and self._mask.shape == self._low.shape and any(mask)):
            raise ValueError(f"a mask allows one of {len(self._low)} choices at least, not {mask}")
        if frame.shape != (self._size,):
            raise ValueError(f"an observation has {self._size} channels, not the shape {frame.shape}")
        reasons, before, used = self._faults(frame, now, stamp), self._previous, frame
        stack = None if reasons else self._stacked(frame)
        is_lost, is_odd, is_novel = bool(reasons), False, False
        reasons += ["history"] * (stack is None and not is_lost)
        proposed, novelty, surprise = np.full_like(self._rest, np.nan), math.nan, math.nan
        if stack is not None:
            raw = self._run(self._policy, stack)
            proposed = self._limited(raw)
            novelty, surprise, _ = self._judge(stack, proposed)
            # Errors of forecasts add up while one follows the other. What is no number is an alarm.
            grown = 1 + self._coasted if self.last is not None and self.last.source == "coast" else 1
            is_odd = before is not None and not surprise <= grown * self._threshold
            is_novel = not novelty <= self._threshold
            reasons += ["policy"] * (not np.isfinite(raw).all()) + ["surprise"] * is_odd
        self._alarms, self._quiet = (self._alarms + 1, 0) if is_novel else (0, self._quiet + 1)
        self._guarding &= self._quiet < self._say["release"]
        self._guarding |= self._alarms >= (self._say["patience"] or math.inf)
        reasons += ["novelty"] * (self._guarding and self._intervenes)
        is_lost |= is_odd and self._intervenes
        if is_lost and before and self._guard and self._coasted < self._say["coast_steps"]:
            used, self._coasted = self._judge(before[0], before[1][0])[2], self._coasted + 1
            stack = self._stacked(used)
            action, source = self._limited(self._run(self._policy, stack)), "coast"
        elif set(reasons) - {"surprise"}:
            action, source = self._act_otherwise(frame, stack, reasons)
        else:  # a frame that still surprises after all forecasts is believed
            action, source = proposed, "policy"
            self._safe, self._held, self._coasted = action, 0, self._coasted if is_odd else 0
        self._frames = [] if is_lost and stack is None else [used, *self._frames][: self._history]
        self._previous = None if stack is None else (stack, action[None])
        self.last = Decision(action, source, tuple(reasons), proposed, novelty, surprise, is_odd or is_novel)
        self._write(frame, self.last, now if stamp is None else stamp, self._clock() - now)
        return self._choices[int(action.argmax())] if self._choices else action.copy()

    def executed(self, action: Any) -> None:
        """Corrects the action of the last step, where a drive or a person overruled it."""
        self._previous = self._previous and (self._previous[0], self._vector(action)[None])

    def _vector(self, action: Any) -> np.ndarray:
        is_id = self._choices and np.shape(action) != self._low.shape
        return self._eye[self._choices.index(np.array(action).tolist())] if is_id else np.array(action, "f4")

    def _open(self, name: str) -> Any:
        path, digest = self.folder / f"{name}.onnx", self.contract["files"].get(f"{name}.onnx")
        if digest is None:
            return None
        if hashlib.sha256(content := path.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path} is not the file that the contract was written for")
        options: Any = cast("Any", onnxruntime).SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def _faults(self, frame: np.ndarray, now: float, stamp: float | None) -> list[str]:
        self._repeats, self._seen = self._repeats + 1 if np.array_equal(frame, self._seen) else 0, frame
        is_stale = self._repeats >= (self._say["frozen_after"] or math.inf)
        if stamp is not None:
            is_stale |= not (stamp > self._stamp and now - stamp <= self._stale)
            if stamp - self._stamp > self._stale:  # frames are missing in between
                self._frames, self._previous = [], None
            self._stamp = max(self._stamp, stamp)
        return ([] if np.isfinite(frame).all() else ["not_finite"]) + (["stale"] if is_stale else [])

    def _stacked(self, frame: np.ndarray) -> np.ndarray | None:
        frames = [frame, *self._frames][: self._history]
        return np.stack(frames)[None] if len(frames) == self._history else None

    def _run(self, session: Any, stack: Any) -> np.ndarray:
        known: dict[str, Any] = {"frames": stack, "mask": self._mask[None]}
        known["noise"] = self._rng.standard_normal((1, len(self._low))).astype(np.float32)
        action, *share = session.run(None, {put.name: known[put.name] for put in session.get_inputs()})
        if share and self.contract["stochastic"] and session is self._policy and np.isfinite(share).all():
            race = share[0][0] / self._rng.exponential(size=len(self._low))  # won with that probability
            return self._eye[int(race.argmax())]
        return action[0]

    def _judge(self, stack: np.ndarray, action: np.ndarray) -> tuple[float, float, np.ndarray]:
        before, sent = self._previous or (stack, action[None])
        if self._guard is None:
            return 0.0, 0.0, stack[0, 0]
        feed = {"frames": stack, "action": action[None], "previous_frames": before, "previous_action": sent}
        novelty, surprise, expected = self._guard.run(["novelty", "surprise", "forecast"], feed)
        return float(novelty[0]), float(surprise[0]) if self._previous else math.nan, expected[0]

    def _act_otherwise(self, frame: np.ndarray, stack: Any, reasons: list[str]) -> tuple[np.ndarray, str]:
        wanted: Any = self._vector(self._fallback(frame)) if callable(self._fallback) else None
        if self._fallback == "policy" and stack is not None:
            wanted = self._run(self._spare, stack)
        if wanted is not None and wanted.shape == self._low.shape and np.isfinite(wanted).all():
            return self._limited(wanted), "fallback"
        reasons += [] if wanted is None else ["fallback"]
        self._held, is_held = self._held + 1, self._held < self._say["hold_steps"]
        return self._limited(self._safe if is_held else self._rest), "hold" if is_held else "rest"

    def _limited(self, action: np.ndarray) -> np.ndarray:
        if self._choices and not self._mask[action.argmax()]:
            action = self._eye[int(self._mask.argmax())]  # what is held may be forbidden by now
        if self.last is not None:
            action = np.clip(action, self.last.action - self._max_change, self.last.action + self._max_change)
        return np.clip(action, self._low, self._high).astype(np.float32)

    def _write(self, frame: np.ndarray, step: Decision, stamp: float, seconds: float) -> None:
        if self._file is not None:
            numbers = (*frame, *step.action, *step.proposed, step.novelty, step.surprise)
            cells = (float(x) if math.isfinite(x) else "" for x in numbers)
            told = [int(step.alarm), step.source, "+".join(step.reasons), round(seconds * 1e3, 4)]
            csv.writer(self._file).writerow([stamp - self._begun, self.episode, *cells, *told])
