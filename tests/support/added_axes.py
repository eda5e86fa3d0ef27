"""Axes of comparison as a user adds them: of words, and of bands cut from numbers."""

from __future__ import annotations

from cmrdata.axes import Axis, Band

ETHNICITY = Axis(
    "ethnicity",
    "Ethnicity",
    "ethnic background",
    {
        "asian": Band("Asian", "Asian"),
        "black": Band("Black", "Black"),
        "white": Band("White", "White"),
    },
)
WAIST = Axis(  # cut from centimetres
    "waist_band",
    "Waist",
    "waist band",
    {"slim": Band("Slim waist", "Slim", 80.0), "wide": Band("Wide waist", "Wide", 110.0)},
    measure="waist",
    edges=(95,),
    bounds=(40, 200),
    unit="cm",
)
