"""Real data and pretrained weights. The loaders read what is installed or was fetched; they download nothing.

Data come as scikit-learn Bunches, weights as a folder. Most are carried by packages of the ``examples`` extra; the rest
lies in the folder that ``make data`` fills, which is ``~/.cache/mmensemble`` unless the environment variable
``MMENSEMBLE_DATA`` names another one. Imports numpy and Pillow; pandas, scikit-learn and the packages of the
``examples`` extra inside the loaders.
"""

from mmensemble.datasets._animated_emoji import load_animated_emoji
from mmensemble.datasets._asterisk import load_asterisk_sounds
from mmensemble.datasets._fortunes import load_fortunes
from mmensemble.datasets._minilm import minilm_folder
from mmensemble.datasets._openmoji import load_openmoji
from mmensemble.datasets._tuxpaint import load_tuxpaint_stamps
from mmensemble.datasets._tweets import load_tweets

__all__ = [
    "load_animated_emoji",
    "load_asterisk_sounds",
    "load_fortunes",
    "load_openmoji",
    "load_tuxpaint_stamps",
    "load_tweets",
    "minilm_folder",
]
