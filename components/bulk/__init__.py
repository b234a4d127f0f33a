"""The steps of the bulk pipeline, which starts with `find_champion`, too."""
