"""Dates as people write them, and as a standard does: pairs without number whose right answer is known."""

import random
from datetime import date, timedelta

FORMS = ("%d %B %Y", "%B %d , %Y", "%A %d %B %Y", "%d / %m / %Y", "%d %b %y", "%B %d %Y")


def dates(count: int, seed: int) -> list[tuple[str, str]]:
    """Pairs such as ("march 3 , 1971", "1 9 7 1 - 0 3 - 0 3"), of the years 1950 to 2049."""
    draw = random.Random(seed)
    days = [date(1950, 1, 1) + timedelta(draw.randrange(36_524)) for _ in range(count)]
    return [(day.strftime(draw.choice(FORMS)).lower(), " ".join(day.isoformat())) for day in days]
