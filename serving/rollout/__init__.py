"""Rollout of a bundle: InferenceService updates, canary, readiness and smoke test."""
