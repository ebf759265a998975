"""A page in the browser on runs, rollouts, tokens and samples. It only reads.

`finding.py` finds what folders hold, `training.py`, `groups.py`, `conversation.py`, `tokens.py` and
`evaluations.py` read it, `pages.py` renders the templates, and `app.py` and `serving.py` serve them.
"""
