"""Print what was found beside what is true: compare.py TRUTH ALIGNED UNBENT."""

import json
import sys

import geopandas
import numpy as np


def main(truth: str, aligned: str, unbent: str) -> None:
    with open(truth) as file:
        true = json.load(file)
    with open(f"{aligned}/later_estimate.json") as file:
        said = json.load(file)
    east, north = said["shift_m"]
    off = np.hypot(east - true["later_m"][0], north - true["later_m"][1])
    print(
        f"later.tif  is off by {true['later_m'][0]:.1f} m east, {true['later_m'][1]:.1f} m north;"
        f" found {east:.1f}, {north:.1f}: {off:.1f} m from the truth, confidence {said['confidence']:.3f}"
    )
    ties = geopandas.read_parquet(f"{unbent}/bent_ties.parquet").query("kept")
    with open(f"{unbent}/bent_estimate.json") as file:
        said = json.load(file)
    t = said["reference_grid"]["proj:transform"]
    col, row = (ties.geometry.x - t[2]) / t[0] - 0.5, (ties.geometry.y - t[5]) / t[4] - 0.5
    wave = 2 * np.pi / true["wave_px"]
    miss = np.hypot(
        ties.dx_px - true["bend_px"] * np.sin(wave * row),
        ties.dy_px - true["bend_px"] * np.cos(wave * col),
    )
    print(
        f"bent.tif   is bent by up to {true['bend_px'] * 2**0.5:.1f} px; {len(ties)} tie points are"
        f" {np.sqrt((miss**2).mean()):.2f} px from the truth, correlation"
        f" {said['correlation']['before']:.2f} before, {said['correlation']['after']:.2f} after"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
