"""Raise a canary's share of the traffic step by step while it is as good as the stable predictor.

The state of a rollout is in the InferenceService: the canary's share of the traffic, and the steps
in its record. So an interrupted analysis resumes at the current step, with new counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import ClassVar

from grocer.artifacts.canary_decision import Action, CanaryDecision, Signal
from grocer.config.deployment import DeployConfig
from grocer.errors import DeployError
from grocer.progress import say
from grocer.release.bundle import LoadedBundle
from serving.rollout import analysis, decision_events
from serving.rollout.analysis import LOOKS, Window
from serving.rollout.canary import promote, rollback, stable_and_canary
from serving.rollout.inference_service import Canary, Revision, State, read_state
from serving.rollout.kubernetes import Cluster, UnreachableError
from serving.rollout.predictor_metrics import PredictorMetrics
from serving.rollout.readiness import wait_until_ready
from serving.rollout.smoke_test import predict
from serving.rollout.traffic import wait_for_traffic
from serving.rollout.update import SupersededError, update

POLL_SECONDS = 5.0
_PREDICT_SECONDS = 30.0
Windows = tuple[Window, Window]
"""Those of the stable predictor and of the canary."""
NO_WINDOWS: Windows = (Window.between({}, {}), Window.between({}, {}))


@dataclass(frozen=True)
class Products:
    """Test products that both predictors classify, and how many predictions should agree."""

    COUNT: ClassVar = 200
    names: Sequence[str]
    expected_agreement: float
    """Share of the test products that the evaluation found correct for both bundles."""

    @classmethod
    def of(cls, bundle: LoadedBundle, names: Sequence[str]) -> Products | None:
        """Return the products `names`; None if the evaluation compared no deployed bundle."""
        if (champion := bundle.manifest.evaluation.champion) is None:
            return None
        only_new = champion.paired.only_model_right / champion.products
        return cls(names, champion.paired.model_accuracy - only_new)


def analyse(
    config: DeployConfig,
    cluster: Cluster | None = None,
    products: Products | None = None,
    digest: str | None = None,
) -> list[CanaryDecision]:
    """Promote the canary if no signal is worse at any step; else roll it back.

    Repeatable: it resumes at the canary's current share, and completes a promotion or a rollback
    that was interrupted.

    Args:
        products: for the signal `agreement`; None: not measured.
        digest: of the bundle that should be the canary; None: any.

    Returns:
        The decisions; the last one is `promote` or `roll_back`. Empty if the bundle `digest` is
        the stable one.

    Raises:
        SupersededError: another process has replaced or promoted the canary.
        UnreachableError: the Kubernetes API did not answer for `config.timeout_seconds`; the canary
            keeps its share.
        DeployError: there is no canary, or it cannot take its share and was rolled back.
    """
    cluster = cluster or Cluster(config.namespace)
    cluster.retry_seconds = config.timeout_seconds
    state = read_state(cluster.inference_service(config.name))
    if digest and state.champion and state.champion.digest == digest:
        return []
    stable, canary = stable_and_canary(config, state, digest)
    steps = config.canary or (canary.revision.record and canary.revision.record.steps) or ()
    percent = canary.traffic_percent
    rollout = _Rollout(cluster, config, stable, canary.revision, percent, steps or (percent,))
    try:
        rollout.run(products)
    except (SupersededError, UnreachableError):
        raise
    except DeployError as error:
        if rollout.decisions and rollout.decisions[-1].action == "roll_back":
            raise
        rollout.decide("roll_back", str(error))
        raise DeployError(f"{error}; {rollout.end()}") from error
    return rollout.decisions


@dataclass
class _Rollout:
    """A canary that is being analysed."""

    cluster: Cluster
    config: DeployConfig
    stable: Revision
    canary: Revision
    percent: int
    """The canary's share of the traffic."""
    steps: tuple[int, ...]
    """All percentages of the rollout, also those before it was interrupted."""
    decisions: list[CanaryDecision] = field(default_factory=list)

    def run(self, products: Products | None) -> None:
        """Go through the steps from the canary's share, then promote or roll back."""
        percent = self.percent
        level = analysis.significance(analysis.ERROR_PROBABILITY, len(self.steps))
        if percent == 0:
            self.decide("roll_back", "a rollback was interrupted")
        elif percent == 100:
            self.decide("promote", "a promotion was interrupted")
        else:
            agreement = self._agreement(products, level) if products else None
            steps = [each for each in self.steps if each >= percent] or [percent]
            for step in steps:
                self._shift(step)
                if self._analyse(level, agreement, step == steps[-1]) != "continue":
                    break
        self.end()

    def end(self) -> str:
        """Promote the canary or roll it back, as decided last, and return a summary."""
        end = promote if self.decisions[-1].promoted else rollback
        summary = end(self.config, self.cluster, self.canary.digest)
        say("deploy", summary)
        return summary

    def _analyse(self, level: float, agreement: Signal | None, last: bool) -> Action:
        """Compare both predictors until the canary is worse or has passed this step."""
        name = self.config.name
        stable = PredictorMetrics(self.cluster, name, self.stable.digest)
        metrics = (stable, PredictorMetrics(self.cluster, name, self.canary.digest))
        deadline = time.monotonic() + self.config.analysis_seconds
        for look, share in enumerate(LOOKS, 1):
            required = ceil(share * self.config.analysis_requests)
            final = look == len(LOOKS)
            windows, enough = self._wait(metrics, required, final, deadline)
            if not enough:
                reason = f"too few requests within {self.config.analysis_seconds:g} s"
                problems = [f"; {each.problem}" for each in metrics if each.problem]
                return self.decide("roll_back", "".join([reason, *problems]), windows)
            signals = analysis.compare(*windows, level) + ((agreement,) if agreement else ())
            if worse := [signal.rule for signal in signals if not signal.passed]:
                reason = f"the canary is worse by {', '.join(worse)}"
                return self.decide("roll_back", reason, windows, signals)
            action: Action = "hold" if not final else "promote" if last else "continue"
            reason = f"no signal is worse (look {look} of {len(LOOKS)})"
            self.decide(action, reason, windows, signals)
        return action

    def _wait(
        self,
        metrics: tuple[PredictorMetrics, PredictorMetrics],
        required: int,
        final: bool,
        deadline: float,
    ) -> tuple[Windows, bool]:
        """Return both windows, and whether they have enough requests before the deadline.

        Failed requests count, except for the final look: a step passes by answered requests.
        """
        windows = NO_WINDOWS
        while True:
            try:
                self._unchanged(self.percent)
                windows = (metrics[0].read(), metrics[1].read())
            except UnreachableError as error:
                metrics[0].problem = str(error)
            counts = [each.answered if final else each.requests for each in windows]
            if min(counts) >= required:
                return windows, True
            if time.monotonic() >= deadline:
                return windows, False
            time.sleep(POLL_SECONDS)

    def _unchanged(self, *percents: int) -> tuple[State, Canary]:
        """Return the state; raise SupersededError if another process changed the traffic."""
        state = read_state(self.cluster.inference_service(self.config.name))
        _, canary = stable_and_canary(self.config, state, self.canary.digest)
        if canary.traffic_percent not in percents or state.champion != self.stable:
            raise SupersededError(
                f"{self.config.service}: the traffic of canary "
                f"{self.canary.digest[:12]} was changed by another process; the analysis ends"
            )
        return state, canary

    def _shift(self, percent: int) -> None:
        """Set the canary's share, and wait for its pods and the gateway."""
        state, canary = self._unchanged(self.percent)
        new = replace(state, canary=replace(canary, traffic_percent=percent))
        try:
            if new != state:
                update(self.cluster, self.config, state, new)
            wait_until_ready(self.cluster, self.config, self.canary)
            wait_for_traffic(self.cluster, self.config, self.canary, percent)
        except UnreachableError:
            raise
        except DeployError:
            self._unchanged(self.percent, percent)
            raise
        self.percent = percent

    def _agreement(self, products: Products, level: float) -> Signal | None:
        """Compare the predictions of test products; not with `deploy.address`, which is one URL."""
        if self.config.address or not products.names:
            return None
        predictions = []
        for each in (self.stable, self.canary):
            url = self.cluster.address(each.deployment(self.config.name))
            found = predict(url, products.names, each.digest, timeout=_PREDICT_SECONDS)
            predictions.append([prediction["department"] for prediction in found])
        same = sum(a == b for a, b in zip(*predictions, strict=True))
        return analysis.agreement(same, len(products.names), products.expected_agreement, level)

    def decide(
        self,
        action: Action,
        reason: str,
        windows: Windows = NO_WINDOWS,
        signals: tuple[Signal, ...] = (),
    ) -> Action:
        decision = CanaryDecision(
            action=action,
            reason=reason,
            percent=self.percent,
            stable=self.stable.digest,
            canary=self.canary.digest,
            stable_requests=windows[0].answered,
            canary_requests=windows[1].answered,
            required=self.config.analysis_requests,
            signals=signals,
        )
        self.decisions.append(decision)
        decision_events.record(self.cluster, self.config, decision)
        return action
