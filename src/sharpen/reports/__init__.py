"""The report of a run: one self-contained page, from a run directory alone.

read      the run directory, tolerant of what is missing or half-written
markup    HTML that escapes by default        numbers   figures as a reader wants them
scale     ticks, thinning, smoothing          plots     SVG charts: lines, stacked bars, whiskers
table     base -> SFT -> RFT                  curves    each stage's charts
samples   held-out prompts side by side       rollouts  training groups
classes   confusion matrix, F1           comparison  arms, differences, tests between runs
overlay   curves of several runs         compare   the page of a comparison
about     recipe, versions, cost, events      html      the page: `write(run_dir)`
outcome   what stands under the verdict   next_commands  what to type next
meanings  what every number means, and its healthy range    glossary  tooltips and their list
"""
