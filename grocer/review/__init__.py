"""Review: products that are worth reviewing, and the corrections of reviewers."""
