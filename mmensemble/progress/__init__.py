"""How far work is: steps within steps, told to whoever listens, and the line on stderr that shows them.

Whoever works opens a `Step` for each part that may take long, inside the `Work` that somebody has called for; a fit is
opened by `fitting`. Listeners hear of the steps by three methods, and so does the default one, `Display`. What
`set_callbacks` was given hears of them as scikit-learn 1.9 tells its own callbacks. Joblib's workers tell nothing:
their jobs are counted where they end.

Imports nothing of scikit-learn, for scoring shows its progress by this too; a fit does when it begins.
"""

from __future__ import annotations

from mmensemble.progress.display import Display
from mmensemble.progress.steps import Listener, Step, listening
from mmensemble.progress.work import Work, fitting, handing_down, report

__all__ = ["Display", "Listener", "Step", "Work", "fitting", "handing_down", "listening", "report"]
