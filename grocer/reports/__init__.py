"""HTML reports of the stages, and the model card."""
