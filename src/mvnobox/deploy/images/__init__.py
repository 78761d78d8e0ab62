"""The container images that the kit builds itself: built when an input changed, never otherwise."""

from mvnobox.deploy.images.ensure import ensure_images
from mvnobox.deploy.images.inputs import IMAGES, image_reference
from mvnobox.deploy.images.load import ImageTarget, image_target, load_images

__all__ = ["IMAGES", "ImageTarget", "ensure_images", "image_reference", "image_target", "load_images"]
