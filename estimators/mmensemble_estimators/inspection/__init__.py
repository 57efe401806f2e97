"""Why one row is predicted so, and what a network looks at: the tokens of a text and the pixels of an image.

Needs the extra ``inspect`` (captum and matplotlib). What a whole composition makes of its modalities is in
`mmensemble.inspection`.
"""

from mmensemble_estimators.inspection.image import ImageSaliencyDisplay, image_saliency
from mmensemble_estimators.inspection.row import RowExplanation, explain_row
from mmensemble_estimators.inspection.text import TokenAttribution, TokenAttributionDisplay, token_attributions

__all__ = [
    "ImageSaliencyDisplay",
    "RowExplanation",
    "TokenAttribution",
    "TokenAttributionDisplay",
    "explain_row",
    "image_saliency",
    "token_attributions",
]
