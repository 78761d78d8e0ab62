"""From a BrandSpec to what is applied: configurations of the services and values of the charts. Pure functions."""

from mvnobox.render.brand import BrandPlan, brand_namespaces, brand_releases, brand_resources
from mvnobox.render.engine import render_template
from mvnobox.render.epc import DiameterPeer, Epc
from mvnobox.render.open5gs import CoreSlice, Plmn
from mvnobox.render.operator import core_input, operator_core
from mvnobox.render.platform import PlatformPlan, platform_namespaces, platform_releases
from mvnobox.render.release import Images, Namespace, Release
from mvnobox.render.roaming import Partner, Roaming
from mvnobox.render.subscribers import Subscribers

__all__ = [
    "BrandPlan",
    "CoreSlice",
    "DiameterPeer",
    "Epc",
    "Images",
    "Namespace",
    "Partner",
    "PlatformPlan",
    "Plmn",
    "Release",
    "Roaming",
    "Subscribers",
    "brand_namespaces",
    "brand_releases",
    "brand_resources",
    "core_input",
    "operator_core",
    "platform_namespaces",
    "platform_releases",
    "render_template",
]
