"""Studies: recipes x seeds x folds, run one after the other or side by side, and one table out."""
