"""Say what the digital numbers of a Landsat-7 ETM+ scene are in reflectance at the top of the atmosphere.

reflectance.py IN.tif OUT.tif: the same pixels, with a scale and an offset for each band from the
ranges and solar irradiances of Chander, Markham and Helder (2009), tables 4 and 5: bands 1, 2, 3,
5, 7 in high gain, 4 in low. The scene's date is not known, so neither is the sun's height: 55 degrees
is assumed, as is the mean distance. Reflectances may be wrong by a fifth.
"""

import math
import sys

import rasterio

SUN = math.sin(math.radians(55))
BANDS = {  # name: least and largest radiance, W/(m2 sr um); solar irradiance, W/(m2 um)
    "blue": (-6.2, 191.6, 1997),
    "green": (-6.4, 196.5, 1812),
    "red": (-5.0, 152.9, 1533),
    "nir": (-5.1, 241.1, 1039),
    "swir16": (-1.0, 31.06, 230.8),
    "swir22": (-0.35, 10.80, 84.90),
}
with rasterio.open(sys.argv[1]) as source:
    pixels, profile = source.read(), source.profile
profile |= {"driver": "GTiff", "compress": "deflate"}
with rasterio.open(sys.argv[2], "w", **profile) as out:
    out.write(pixels)
    out.descriptions = tuple(BANDS)
    gains = [(high - low) / 254 for low, high, _ in BANDS.values()]
    factors = [math.pi / (sun * SUN) for *_, sun in BANDS.values()]
    lows = [low for low, *_ in BANDS.values()]
    out.scales = [g * f for g, f in zip(gains, factors, strict=True)]
    out.offsets = [(low - g) * f for low, g, f in zip(lows, gains, factors, strict=True)]
