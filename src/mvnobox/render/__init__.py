"""From a BrandSpec to what is applied: configurations of the services and values of the charts. Pure functions."""

from mvnobox.render.brand import (
    BrandPlan,
    brand_namespaces,
    brand_releases,
    brand_resources,
    check_directory,
    check_platform,
)
from mvnobox.render.directory import directory_uri, directory_users
from mvnobox.render.engine import render_template
from mvnobox.render.epc import Epc, check_halves
from mvnobox.render.mme import Mme
from mvnobox.render.open5gs import CoreSlice, Plmn
from mvnobox.render.operator import core_input, operator_core
from mvnobox.render.outside import BrandEdge, Outside
from mvnobox.render.platform import PlatformPlan, platform_namespaces, platform_releases
from mvnobox.render.release import Forwarding, Images, Namespace, Release
from mvnobox.render.roaming import Partner, Roaming
from mvnobox.render.s6a import DiameterPeer
from mvnobox.render.sbi_tls import SbiTls
from mvnobox.render.subscribers import Subscribers

__all__ = [
    "BrandEdge",
    "BrandPlan",
    "CoreSlice",
    "DiameterPeer",
    "Epc",
    "Forwarding",
    "Images",
    "Mme",
    "Namespace",
    "Outside",
    "Partner",
    "PlatformPlan",
    "Plmn",
    "Release",
    "Roaming",
    "SbiTls",
    "Subscribers",
    "brand_namespaces",
    "brand_releases",
    "brand_resources",
    "check_directory",
    "check_halves",
    "check_platform",
    "core_input",
    "directory_uri",
    "directory_users",
    "operator_core",
    "platform_namespaces",
    "platform_releases",
    "render_template",
]
