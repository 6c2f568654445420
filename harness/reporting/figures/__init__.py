"""Figures: one pure function each, from arrays to a matplotlib figure; one style, safe for the colour-blind."""
