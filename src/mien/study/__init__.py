"""Studies: recipes x seeds x folds, run one after the other or side by side, and one table out.

specification   what a study is: a YAML file with rows or a grid, seeds, folds and scales
run             runs what is missing, resumes what was stopped, measures what is trained
table           the rows, each with its measured and its reported figure
queue           several studies in order of value, as far as the processor suits them
claims          the page that sets every published figure next to ours
"""
