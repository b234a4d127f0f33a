"""The KServe predictor: serves a bundle over HTTP."""
