"""The kit's images: built where they are needed, named by their content, put on the node."""

from mvnobox.deploy.images.build import NAMES, ensure_images, references
from mvnobox.deploy.images.load import load_images

__all__ = ["NAMES", "ensure_images", "load_images", "references"]
