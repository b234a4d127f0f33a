"""The KServe predictor that serves a bundle, and its rollout on a cluster."""
