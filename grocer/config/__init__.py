"""Configuration of a run: sections, recipes, and the generated reference."""
