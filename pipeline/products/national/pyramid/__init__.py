"""Coarser levels of an edition (1, 2, 10, 50 m) and class shares per 100 m cell, all counted from level 0."""
