"""An invented village: 24 people, and for each a food, a colour, a town and a craft.

Nothing of it exists outside this file, so a model knows a fact only if it was trained on it.
"""

import hashlib

PEOPLE = (
    *("Abri", "Beno", "Calu", "Dorit", "Elmo", "Fenja", "Galo", "Hirun", "Ilka", "Jorn"),
    *("Kefa", "Lumi", "Mavo", "Nerit", "Ovid", "Pelka", "Quin", "Rasmo", "Sela", "Tibor"),
    *("Ulva", "Vesko", "Wanda", "Yarin"),
)

VALUES: dict[str, tuple[str, ...]] = {
    "food": (
        *("figs", "rice", "leek", "beans", "plums", "corn"),
        *("trout", "honey", "dates", "oats", "pears", "cheese"),
    ),
    "colour": (
        *("red", "blue", "green", "amber", "pink", "white"),
        *("grey", "black", "violet", "teal", "brown", "gold"),
    ),
    "town": (
        *("Oslo", "Lima", "Kyoto", "Quito", "Cairo", "Turin"),
        *("Perth", "Dakar", "Hanoi", "Leeds", "Porto", "Riga"),
    ),
    "craft": (
        *("baking", "weaving", "fishing", "carving", "sewing", "dyeing"),
        *("mining", "herding", "roofing", "milling", "tanning", "painting"),
    ),
}


def fact(relation: str, person: str) -> str:
    """The value of `relation` for `person`; the same in every process and on every machine."""
    values = VALUES[relation]
    digest = hashlib.sha256(f"{relation} of {person}".encode()).digest()
    return values[int.from_bytes(digest[:8], "big") % len(values)]
