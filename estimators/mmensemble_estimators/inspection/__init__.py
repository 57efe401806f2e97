"""What a network looks at: integrated gradients over the tokens of a text and the pixels of an image.

Needs the extra ``inspect`` (captum and matplotlib). What a whole composition makes of its modalities is in
`mmensemble.inspection`.
"""

from mmensemble_estimators.inspection.image import ImageSaliencyDisplay, image_saliency
from mmensemble_estimators.inspection.text import TokenAttribution, TokenAttributionDisplay, token_attributions

__all__ = [
    "ImageSaliencyDisplay",
    "TokenAttribution",
    "TokenAttributionDisplay",
    "image_saliency",
    "token_attributions",
]
