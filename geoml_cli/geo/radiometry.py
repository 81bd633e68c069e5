"""From the radiance at the top of the atmosphere to reflectance, and to the temperature of a black body as bright.

Constants: MODIS L1B (the bands of Terra, as its readers have them), GOES-R ABI product guide.
"""

import numpy as np

PLANCK_J_S, LIGHT_M_S, BOLTZMANN_J_K = 6.6260755e-34, 2.9979246e8, 1.380658e-23
MODIS = {  # band: wave number in 1/cm, slope, intercept in K
    20: (2641.775, 0.9993411, 0.4770532),
    21: (2505.277, 0.9998646, 0.09262664),
    22: (2518.028, 0.9998584, 0.09757996),
    23: (2465.428, 0.9998682, 0.08929242),
    24: (2235.815, 0.9998819, 0.07310901),
    25: (2200.346, 0.9998845, 0.07060415),
    27: (1477.967, 0.9994877, 0.2204921),
    28: (1362.737, 0.9994918, 0.2046087),
    29: (1173.190, 0.9995495, 0.1599191),
    30: (1027.715, 0.9997398, 0.08253401),
    31: (908.0884, 0.9995608, 0.1302699),
    32: (831.5399, 0.9997256, 0.07181833),
    33: (748.3394, 0.9999160, 0.01972608),
    34: (730.8963, 0.9999167, 0.01913568),
    35: (718.8681, 0.9999191, 0.01817817),
    36: (704.5367, 0.9999281, 0.01583042),
}
ABI = (
    13432.1,
    1497.61,
    0.09102,
    0.99971,
)  # of band 14, which the makers of SatVision-TOA take for every infrared one
ABI_IRRADIANCE, ABI_DISTANCE_AU = 2017.0, 0.99


def black_body_k(radiance: np.ndarray, wavelength_m: float) -> np.ndarray:
    """Temperature of a black body of this radiance in W / m2 / sr / um: Planck's law turned round."""
    first = 2 * PLANCK_J_S * LIGHT_M_S**2
    second = PLANCK_J_S * LIGHT_M_S / BOLTZMANN_J_K
    return second / (wavelength_m * np.log(first / (1e6 * radiance * wavelength_m**5) + 1))


def modis_brightness_k(radiance: np.ndarray, band: int) -> np.ndarray:
    """Brightness temperature of a thermal band of MODIS, of radiance in W / m2 / sr / um."""
    per_cm, slope, intercept = MODIS[band]
    return (black_body_k(radiance, 0.01 / per_cm) - intercept) / slope


def abi_brightness_k(radiance: np.ndarray, planck: tuple[float, ...] = ABI) -> np.ndarray:
    """Brightness temperature of an infrared band of ABI, of radiance in mW / m2 / sr / (1/cm), by the constants fk1, fk2, bc1, bc2
    that its files have.
    """
    fk1, fk2, bc1, bc2 = planck
    return (fk2 / np.log(fk1 / radiance + 1) - bc1) / bc2


def reflectance(
    radiance: np.ndarray, irradiance: float = ABI_IRRADIANCE, distance_au: float = ABI_DISTANCE_AU
) -> np.ndarray:
    """Share 0..1 of the sun's light that comes back, of radiance and the irradiance of the sun in like units."""
    return radiance * (np.pi * distance_au**2 / irradiance)
