"""Review: products that are worth a look, and the corrections of reviewers."""
