"""Trust: the signers that are accepted, and the gate policy below which nothing is deployed.

Both belong to the platform, not to the run: they are in a directory that the predictor and the
pipeline's steps mount. A submitter cannot change it.

    /etc/grocer/trust/  one *.pem per public key or CA  [sigstore.json]  [gate.json]
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from grocer.artifacts.evaluation import Evaluation
from grocer.config.base import Fraction
from grocer.config.stages import EvaluationConfig, GatePolicy
from grocer.errors import BundleError, ConfigError, validation_problems
from grocer.gate.rules import decide
from grocer.release.signature import MAX_SIGNATURE_BYTES, SIGNATURE, check_trusted, verify

VARIABLE, DIRECTORY = "GROCER_TRUST", Path("/etc/grocer/trust")
FLOOR, KEYLESS = "gate.json", "sigstore.json"
_OTHER_FILES = (FLOOR, KEYLESS, "trust-config")


class Floor(GatePolicy):
    """`gate.json`: the keys of the section `gate` that a run cannot relax; absent keys are free."""

    confidence: Fraction = EvaluationConfig().confidence
    """Minimum of `evaluation.confidence`, on which all bounds and tests depend."""


@dataclass(frozen=True)
class Trust:
    """Trusted signers, of which a bundle needs the signature of one if there are any."""

    source: Path | None = None
    signers: tuple[Path, ...] = ()
    """Files as `grocer.release.signature.verify` accepts them."""
    floor: Floor | None = None

    @classmethod
    def of_platform(cls) -> Self:
        """Return what GROCER_TRUST names, or else /etc/grocer/trust has; it may be empty.

        Raises:
            ConfigError: GROCER_TRUST names nothing, or what it names is invalid.
        """
        if named := os.environ.get(VARIABLE):
            return cls.read(Path(named))
        # An optional ConfigMap that does not exist is mounted as an empty directory.
        return cls.read(DIRECTORY) if _files(DIRECTORY) else cls()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the trust in a directory, or in a single PEM file.

        Raises:
            ConfigError: there is no such path, or it has a file that is invalid or unknown.
        """
        floor, signers = None, []
        for file in _files(path):
            if file.name == FLOOR:
                floor = _read_floor(file)
            elif path.is_file() or file.suffix == ".pem" or file.name == KEYLESS:
                check_trusted(file)
                signers.append(file)
            elif file.name not in _OTHER_FILES:
                raise ConfigError(
                    f"{file}: unknown file; expected *.pem, {', '.join(_OTHER_FILES)}"
                )
        if not signers:  # a gate policy alone would not prevent that its evaluation is forged
            raise ConfigError(
                f"{path}: no trusted key found; expected a PEM file, or a directory with *.pem"
            )
        return cls(path, tuple(signers), floor)

    def require_signature(self, bundle: Path, digests: Mapping[str, str]) -> str | None:
        """Return a description of the signer; None if no signers are configured.

        Args:
            digests: SHA-256 of every file of the bundle except the signature.

        Raises:
            BundleError: there is no signature, or it is not valid for any trusted signer.
        """
        if not self.signers:
            return None
        signature = bundle / SIGNATURE
        if not signature.is_file():
            raise BundleError(
                f"{bundle} is not signed, but {self.source} requires a signature; deploy it with "
                "deploy.signing_key"
            )
        if (size := signature.stat().st_size) > MAX_SIGNATURE_BYTES:
            raise BundleError(
                f"{signature} has {size:,} bytes; expected at most {MAX_SIGNATURE_BYTES:,}"
            )
        reasons = []
        for trusted in self.signers:
            try:
                return verify(bundle, digests, trusted)
            except BundleError as error:
                reasons.append(str(error))
        more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
        raise BundleError(f"{bundle}: no trusted signature: {reasons[0]}{more}")

    def require_floor(self, evaluation: Evaluation, policy: GatePolicy) -> None:
        """Apply the gate's rules with the floor's limits instead of those of the run.

        The run's own limits, where they are stricter, were applied by the run's decision.

        Raises:
            BundleError: a rule fails; it has the rule, the value and the limit.
        """
        if self.floor is None:
            return
        limits = {name: getattr(self.floor, name) for name in self.floor.model_fields_set}
        limits.pop("confidence", None)
        failures = []
        if evaluation.confidence < self.floor.confidence:
            failures.append(
                f"confidence: Confidence level: {evaluation.confidence:g} (minimum "
                f"{self.floor.confidence:g})."
            )
        decision = decide(evaluation, policy.model_copy(update=limits))
        failures += [f"{each.rule}: {each.sentence}" for each in decision.failures]
        if failures:
            raise BundleError(
                f"the platform's gate policy ({self.source}/{FLOOR}) rejects this bundle: "
                f"{' '.join(failures)}"
            )


def _files(path: Path) -> list[Path]:
    """Return a file, or the files in a directory; none if it does not exist."""
    if not path.is_dir():
        return [path] if path.exists() else []
    # A mounted ConfigMap also has entries that start with two dots.
    return sorted(each for each in path.iterdir() if not each.name.startswith(".."))


def _read_floor(path: Path) -> Floor:
    try:
        return Floor.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        problem = validation_problems(error)[0] if isinstance(error, ValidationError) else error
        raise ConfigError(f"{path}: {problem}") from error
