"""A page in the browser on runs, rollouts, tokens and samples. It only reads.

`finding.py` finds what folders hold. `training.py`, `groups.py`, `conversation.py`, `tokens.py`,
`evaluations.py` and `ledger.py` read it. `site.py`, `run_pages.py` and `rollout_pages.py` have the
values of each page, `pages.py` renders the templates, and `app.py` and `serving.py` serve them.
"""
