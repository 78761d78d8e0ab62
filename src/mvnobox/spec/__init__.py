"""BrandSpec: the one file that a brand owns, and the country packs that it is checked against.

>>> from mvnobox.spec import load_brand
>>> load_brand("brands/silverline.yaml").country
'FR'
"""

from mvnobox.spec.brand import (
    Allowances,
    BrandSpec,
    DestinationGroup,
    Plan,
    Slice,
    TopUp,
)
from mvnobox.spec.conflicts import check_together
from mvnobox.spec.country import Country, country, country_codes
from mvnobox.spec.loading import InvalidSpec, Problem, load_brand, parse_brand
from mvnobox.spec.networks import DataNetwork
from mvnobox.spec.rating import minor_units, rating_document
from mvnobox.spec.schema import brand_schema

__all__ = [
    "Allowances",
    "BrandSpec",
    "Country",
    "DataNetwork",
    "DestinationGroup",
    "InvalidSpec",
    "Plan",
    "Problem",
    "Slice",
    "TopUp",
    "brand_schema",
    "check_together",
    "country",
    "country_codes",
    "load_brand",
    "minor_units",
    "parse_brand",
    "rating_document",
]
